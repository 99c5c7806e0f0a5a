"""A run's folder: ours, or that of Hugging Face, Lightning, TensorBoard, W&B or MLflow."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from vqlib.diagnosis.logs import HistoryError
from vqlib.diagnosis.reading.columns import EXAMPLE
from vqlib.diagnosis.reading.files import read_file
from vqlib.diagnosis.reading.names import meaning

# names that trainers give their logs, the likeliest first
LOGS = (
    "history.csv", "metrics.csv", "metrics.jsonl", "log.jsonl", "history.jsonl", "history.json",
    "log.txt", "log.csv", "metrics.json", "progress.csv", "log.json", "output.log", "train.log",
    "training.log", "log.log", "stats.csv", "scalars.json",
)  # fmt: skip
MOST_FILES = 20_000  # looked at in a folder
BLOCK = 32768  # bytes of W&B's framing, that of LevelDB's log


def read_folder(folder: Path) -> tuple[pd.DataFrame, dict, str]:
    """(table, settings, the file or folder it came from). Raises HistoryError if there is none."""
    if (folder / "history.csv").is_file():
        said = _json(folder / "config.json") | _json(folder / "summary.json")
        return read_file(folder / "history.csv"), said, str(folder / "history.csv")
    for reader in (_hugging_face, _lightning, _wandb, _mlflow, _tensorboard, _one_log):
        found = reader(folder)
        if found is not None:
            return found
    raise HistoryError(
        f"{folder} holds no history.csv, and no other log that is known (trainer_state.json, "
        f"metrics.csv, event files of TensorBoard, a run of W&B or MLflow). {EXAMPLE}"
    )


def _json(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _newest(paths) -> Path | None:
    return max(paths, key=lambda p: (p.stat().st_mtime, p.name), default=None)


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Folders such as checkpoint-500 or version_3, the highest number first."""

    def number(path: Path) -> int:
        digits = "".join(c for c in path.name if c.isdigit())
        return int(digits) if digits else -1

    return sorted((p for p in folder.glob(pattern) if p.is_dir()), key=number, reverse=True)


def _hugging_face(folder: Path):
    for place in (folder, *_numbered(folder, "checkpoint-*")):
        state = place / "trainer_state.json"
        if state.is_file():
            return read_file(state), {}, str(state)
    return None


def _lightning(folder: Path):
    for place in (folder, *_numbered(folder, "version_*"), *_numbered(folder, "*/version_*")):
        metrics = place / "metrics.csv"
        if metrics.is_file():
            return read_file(metrics), {}, str(metrics)
    return None


def _one_log(folder: Path):
    there = [folder / name for name in LOGS if (folder / name).is_file()]
    others = [p for p in sorted(folder.glob("*")) if p.is_file() and p not in there]
    others = [p for p in others if p.suffix in (".csv", ".jsonl", ".log", ".parquet")]
    for path in (*there, *others[:20]):
        try:
            table = read_file(path)
        except HistoryError:
            continue
        if any(m and m.quantity not in ("step", "epoch") for m in map(meaning, map(str, table))):
            return table, {}, str(path)
    return None


# --- TensorBoard ---


def _tensorboard(folder: Path):
    files = [p for p, _ in zip(folder.rglob("*tfevents*"), range(MOST_FILES), strict=False)]
    if not files:
        return None
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        raise HistoryError(
            f"{folder} holds event files of TensorBoard, and tensorboard, which reads them, is not "
            "installed: pip install 'vqlib[logs]'"
        ) from None
    parts = []
    for place in sorted({p.parent for p in files}):
        events = EventAccumulator(str(place), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        inside = place.relative_to(folder).as_posix()
        before = "" if inside == "." else f"{inside}/"
        parts += _scalars(events, before)
    if not parts:
        raise HistoryError(f"{folder}: its event files hold no scalars")
    table = pd.concat(parts, axis=1)
    return table.rename_axis("step").reset_index(), {}, str(folder)


def _scalars(events, before: str) -> Iterator[pd.Series]:
    tags = events.Tags()
    for tag in tags["scalars"]:
        points = {event.step: event.value for event in events.Scalars(tag)}
        yield pd.Series(points, name=f"{before}{tag}", dtype=float)
    for tag in tags["tensors"]:  # what TensorFlow 2 and tf.summary write
        from tensorboard.util.tensor_util import make_ndarray

        held = {e.step: make_ndarray(e.tensor_proto) for e in events.Tensors(tag)}
        points = {step: float(value) for step, value in held.items() if value.size == 1}
        if points:
            yield pd.Series(points, name=f"{before}{tag}", dtype=float)


# --- W&B ---


def _wandb(folder: Path):
    files = [p for pattern in ("*.wandb", "*/*.wandb", "*/*/*.wandb") for p in folder.glob(pattern)]
    path = _newest({p.resolve() for p in files})
    if path is None:
        return None
    try:
        from wandb.proto.wandb_internal_pb2 import Record
    except ImportError:
        printed = path.parent / "files" / "output.log"
        if printed.is_file():
            return read_file(printed), {}, str(printed)
        raise HistoryError(
            f"{path} is a run of W&B, and wandb, which reads it, is not installed: "
            "pip install 'vqlib[logs]'"
        ) from None
    rows, config = [], {}
    for data in _framed(path.read_bytes()):
        record = Record()
        try:
            record.ParseFromString(data)
        except Exception:  # the package's error for a damaged record; what came before is whole
            break
        rows += [_items(record.history.item)] if record.HasField("history") else []
        for said in (record.config.update, record.run.config.update):
            config |= _items(said)
    if not rows:
        raise HistoryError(f"{path}: this run of W&B logged nothing")
    return pd.DataFrame(rows), config, str(path)


def _items(items) -> dict:
    found = {}
    for item in items:
        try:
            found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        except ValueError:
            continue
    return found


def _framed(content: bytes) -> Iterator[bytes]:
    """The records in W&B's file: a head of 7 bytes, then LevelDB's framing of its log."""
    place, whole = 7, b""
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        data = content[place + 7 : place + 7 + length]
        if kind == 0 or len(data) < length:  # padding, or cut off by a kill
            return
        place += 7 + length
        whole = data if kind in (1, 2) else whole + data  # 1 whole, 2 first, 3 middle, 4 last
        if kind in (1, 4):
            yield whole


# --- MLflow ---


def _mlflow(folder: Path):
    """MLflow's own files: a file a metric, a line "time value step" a point."""
    runs = [folder / "metrics"] if (folder / "metrics").is_dir() else []
    runs += [
        p for pattern in ("*/metrics", "*/*/metrics") for p in folder.glob(pattern) if p.is_dir()
    ]
    place = _newest(runs)
    if place is None:
        return None
    columns = {}
    for path in sorted(p for p in place.rglob("*") if p.is_file()):
        points = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            cells = line.split()
            if len(cells) >= 3:
                points[int(float(cells[2]))] = float(cells[1])
        columns[path.relative_to(place).as_posix()] = pd.Series(points, dtype=float)
    if not columns:
        return None
    settings = {p.name: _value(p) for p in (place.parent / "params").glob("*") if p.is_file()}
    return pd.DataFrame(columns).rename_axis("step").reset_index(), settings, str(place.parent)


def _value(path: Path):
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    try:
        return float(text) if "." in text or "e" in text.lower() else int(text)
    except ValueError:
        return text
