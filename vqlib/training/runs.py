"""Run: what a training leaves behind, in memory and in a folder."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from vqlib.quantization.names import printable
from vqlib.quantization.ranges import SettingsError
from vqlib.training import checkpoints, files, locks
from vqlib.training.config import TrainConfig
from vqlib.training.model import VQVAE, build_model

# Floats to the last bit: what pandas does by itself from 3.1 on, where the argument is going away.
_PANDAS = tuple(int(part) for part in pd.__version__.split(".")[:2])
EXACT: Any = {} if _PANDAS >= (3, 1) else {"float_precision": "round_trip"}


@dataclass
class Run:
    """What a training leaves: settings, history, summary, model, and traces of each code.

    ``trace`` holds tensors. Always ``val_steps`` (v,) and ``val_counts`` (v, K), one row a
    validation. With ``trace_every`` also ``steps`` (t,), ``counts`` and ``cluster_size``
    (t, K) at those steps; ``reset_events`` (r, 3), a row (step, code, token) for each reset;
    and at each validation ``codebook`` (v, K, D) and ``probe`` (v, P, D), the unit encoder
    outputs of a fixed probe.
    """

    config: TrainConfig
    history: pd.DataFrame
    summary: dict
    model: VQVAE
    trace: dict[str, Tensor]

    def split(self, name: str) -> pd.DataFrame:
        """The history's rows of one split, "train" or "val"."""
        return self.history[self.history["split"] == name].reset_index(drop=True)

    def __str__(self) -> str:
        """Its last rows, and what was reset."""
        last = {name: self.split(name).tail(1) for name in ("train", "val")}
        table = pd.DataFrame(
            {
                words: [_shown(rows[column], show) for rows in last.values()]
                for column, (words, show) in _SHOWN.items()
            },
            index=["training", "validation"],
        )
        s = self.summary
        lines = [
            f"{s['steps']} steps on {s['data']} in {s['seconds']:.0f} s ({s['device']}, "
            f"{_workers(s)}), {self.config.codebook_size} codes",
            "",
            table.T.to_string(),
            "",
            self._resets(),
        ]
        if s["skipped_pictures"]:
            lines.append(f"{s['skipped_pictures']} pictures could not be read and were skipped")
        return "\n".join(lines)

    def _resets(self) -> str:
        threshold, total = self.config.dead_code_threshold, self.summary["total_resets"]
        if threshold == 0:
            return "No resets: dead_code_threshold 0 turns them off"
        dead = f"cluster_size < {threshold:g}" + (" x N/K" if self.config.reset_relative else "")
        return f"{total} resets of dead codes ({dead})" if total else f"No resets: never {dead}"

    def save(self, folder: str | Path) -> None:
        """Write history.csv, config.json, summary.json and run.safetensors, each whole."""
        folder = Path(folder)
        write_history(folder, self.history)
        _write_config(folder, self.config)
        checkpoints.write_tensors(
            folder / "run.safetensors",
            checkpoints.flatten(model=self.model.state_dict(), trace=self.trace),
            {"channels": self.model.channels, "dims": self.model.dims},
        )
        # last: whoever finds a summary finds a whole run
        files.write_text(folder / "summary.json", _json(self.summary))

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read what `save` wrote; the model comes back on the CPU, in evaluation mode.

        Raises FileNotFoundError or ValueError if the folder holds no whole run.
        """
        folder = Path(folder)
        if not (folder / "summary.json").is_file():
            raise FileNotFoundError(
                f"{printable(str(folder))} holds no finished run (no summary.json)"
            )
        config = read_config(folder)
        tensors, info = checkpoints.read_tensors(folder / "run.safetensors")
        with fitting(folder / "run.safetensors"):
            model = build_model(config, info["channels"], info.get("dims", 2))
            model.load_state_dict(checkpoints.unflatten(tensors, "model"))
        history = read_history(folder / "history.csv")
        summary = files.read_json(folder / "summary.json")
        return cls(config, history, summary, model.eval(), checkpoints.unflatten(tensors, "trace"))


# column: its words, and how its values are shown
_SHOWN = {
    "utilization": ("Utilization", "{:.1%}"),
    "uniform_utilization": ("  uniform use would show", "{:.1%}"),
    "perplexity": ("Perplexity", "{:.4g}"),
    "top_code_ratio": ("Top code ratio", "{:.4g}"),
    "recon_loss": ("Reconstruction MSE", "{:.4g}"),
    "window_tokens": ("Tokens counted", "{:,.0f}"),
}


def _workers(summary: dict) -> str:
    ranks = summary.get("ranks", 1)  # an older version knew one
    of_each = f"{summary['threads']} thread(s)"
    return of_each if ranks == 1 else f"{ranks} processes with {of_each} each"


def _shown(values: pd.Series, show: str) -> str:
    """The last of ``values`` as text; a dash if there is none."""
    return show.format(values.iloc[-1]) if len(values) else "–"


class TrainingDiverged(RuntimeError):
    """The loss or its gradient stopped being finite. ``run`` holds what was last good."""

    def __init__(self, message: str, run: Run):
        super().__init__(message)
        self.run = run

    def __reduce__(self):  # so that it comes whole out of a worker process
        return type(self), (str(self), self.run)


class Trace:
    """Tensors gathered step by step under a name: stacked, or joined if they are tables."""

    TABLES = frozenset({"reset_events"})

    def __init__(self, stacked: dict[str, Tensor] | None = None):
        self._parts = {
            name: [whole] if name in self.TABLES else list(whole)
            for name, whole in (stacked or {}).items()
        }

    def add(self, name: str, value: Tensor) -> None:
        self._parts.setdefault(name, []).append(value.detach().cpu().clone())

    def last(self, name: str) -> Tensor | None:
        """What was last added under a name; None if nothing was."""
        parts = self._parts.get(name)
        return parts[-1] if parts else None

    def stacked(self) -> dict[str, Tensor]:
        return {
            name: torch.cat(parts) if name in self.TABLES else torch.stack(parts)
            for name, parts in self._parts.items()
        }


def read_history(file: Path) -> pd.DataFrame:
    """What `write_history` wrote, to the last bit. Raises ValueError for anything else."""
    try:
        rows = pd.read_csv(file, **EXACT)
    except (ValueError, OverflowError) as error:  # pandas' errors are ValueErrors
        raise ValueError(f"{file} is no history: {error}") from None
    if missing := {"step", "split"} - set(rows.columns):
        raise ValueError(f"{file} is no history: it has no column {', '.join(sorted(missing))}")
    return rows


def write_history(folder: Path, history: pd.DataFrame) -> None:
    with files.atomic(folder / "history.csv") as temporary:
        history.to_csv(temporary, index=False)


def check_history(folder: Path, history: pd.DataFrame) -> None:
    """Raises ValueError if ``folder``'s history.csv was not written by this very run.

    ``history``: of the run's checkpoint, with which the file will be replaced. The file may end
    earlier, and later rows are of a last validation or of a divergence.
    """
    file = folder / "history.csv"
    if not file.is_file():
        return
    there = read_history(file)
    ours = history[history["step"] <= there["step"].max()].reset_index(drop=True)
    rows, more = there.iloc[: len(ours)], there.iloc[len(ours) :]
    last = ours["step"].max() if len(ours) else 0
    later = (more["step"] > last) | ((more["step"] == last) & (more["split"] == "val"))
    known = [c for c in history.columns if c in there]  # an older version wrote fewer columns
    strange = set(there.columns) - set(known)
    if strange or not _equal(rows[known], ours[known]) or not later.all():
        raise ValueError(
            f"{file} was changed by hand, or is of another run, and is not overwritten; move it "
            "away to resume"
        )


def _equal(one: pd.DataFrame, two: pd.DataFrame) -> bool:
    try:
        pd.testing.assert_frame_equal(one, two, check_exact=True, check_dtype=False)
    except AssertionError:
        return False
    return True


def begin(folder: Path, config: TrainConfig, *, finished: bool) -> None:
    """Write config.json; a run that goes on is no finished run, so its old results go."""
    if not finished:
        for name in ("summary.json", "run.safetensors"):
            (folder / name).unlink(missing_ok=True)
    _write_config(folder, config)


@contextmanager
def claimed(folder: Path | None, config: TrainConfig, resume: bool):
    """Hold ``folder`` for this run; gives what `claim` does.

    Raises FolderInUse, and what `claim` raises. Settings or data that turn out unusable leave no
    folder to clear away.
    """
    if folder is None:
        yield claim(folder, config, resume)
        return
    with locks.checked(folder, lambda: claim(folder, config, resume)) as state:
        files.clear(folder)
        yield state


def claim(folder: Path | None, config: TrainConfig, resume: bool):
    """Check that ``folder`` is free for this run (None), or return the checkpoint to resume from.

    A run that was killed before its first checkpoint begins again, with or without ``resume``.
    Writes nothing.
    """
    if folder is None:
        if resume:
            raise ValueError("resume needs out_dir, the folder of the run to resume")
        return None
    if not resume:
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is a file; expected a folder; choose another out_dir")
        if folder.exists() and not _is_free(folder, config):
            raise FileExistsError(
                f"{folder} is not empty and is not overwritten; choose another out_dir, or "
                "resume the run in it with --resume"
            )
        return None
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"nothing to resume: {folder} holds no config.json")
    # a setting that an older version did not know has its default
    before = read_config(folder).to_dict()
    # a longer run begins like a shorter one, unless its cooldown begins later
    free = set() if config.cooldown_steps else {"steps", "epochs"}
    changed = {
        name: (before.get(name), value)
        for name, value in config.to_dict().items()
        if name not in free and before.get(name) != value
    }
    if changed:
        text = ", ".join(f"{n} was {old!r}, is {new!r}" for n, (old, new) in changed.items())
        raise ValueError(f"a run resumes with the settings it began with; changed: {text}")
    return _checkpoint(folder, config)


def _is_free(folder: Path, config: TrainConfig) -> bool:
    """Whether a folder is empty, but for what a run of ``config`` left that was killed early."""
    there = [p for p in folder.iterdir() if p.name != locks.NAME and not files.is_part(p)]
    if [path.name for path in there] != ["config.json"]:
        return not there
    try:
        return read_config(folder) == config
    except (OSError, ValueError):
        return False


def _checkpoint(folder: Path, config: TrainConfig):
    """(tensors, info) to resume from; None if the run was killed before it wrote any."""
    file = folder / "checkpoint.safetensors"
    if not file.exists() and not {"summary.json", "run.safetensors"} & set(os.listdir(folder)):
        return None
    tensors, info = checkpoints.read_tensors(file)
    if not isinstance(info.get("step"), int) or not isinstance(info.get("seconds"), float):
        raise ValueError(f"{file} holds no training that can be resumed")
    if info.get("config", identity(config)) != identity(config):
        raise ValueError(f"{file} is of another run than config.json beside it")
    return tensors, info


def identity(config: TrainConfig) -> str:
    """Hex digest of what a run is, but for its length."""
    values = {n: v for n, v in config.to_dict().items() if n not in ("steps", "epochs")}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_config(folder: Path) -> TrainConfig:
    """The settings of the run in ``folder``. Raises OSError or ValueError."""
    file = folder / "config.json"
    try:
        return TrainConfig.from_dict(files.read_json(file))
    except SettingsError as error:
        raise ValueError(f"{file}: {error}") from None


@contextmanager
def fitting(what: object):
    """Turns the errors of a state that is whole but of another model into a ValueError."""
    try:
        yield
    except (KeyError, RuntimeError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{what} does not fit the settings beside it: {reason}") from None


def _write_config(folder: Path, config: TrainConfig) -> None:
    files.write_text(folder / "config.json", _json(config.to_dict()))


def _json(values: dict) -> str:
    return json.dumps(values, indent=2) + "\n"
