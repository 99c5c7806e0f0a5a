"""A Run, a table, a file or a run's folder, opened: rows and what it says of its settings."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd

from vqlib.diagnosis.logs import HistoryError, Log, checked, in_hits
from vqlib.training.runs import Run
from vqlib.watching.adapters import adapter_for

BINARY = {
    b"\x1f\x8b": "compressed (gzip)",
    b"PK\x03\x04": "an archive (zip, xlsx)",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "UTF-16",
}


def read(source, title: str | None = None, **given) -> Log:
    """The checked log of a `Run`, a table, or a file or run folder.

    Args:
        source: a Run; a DataFrame or what makes one; the path of a .csv (commas, semicolons or
            tabs), .json or .jsonl file, or of a run's folder.
        given: any of `KNOWN`; they go before what the source says.

    Raises:
        HistoryError: the source or an argument cannot be used.
    """
    table, settings, name = _open(source)
    return checked(table, settings, given, name, title)


def _open(source) -> tuple[pd.DataFrame, dict, str]:
    if isinstance(source, Run):
        return source.history, _of_run(source), "run"
    if isinstance(source, pd.DataFrame):
        return source, {}, "history"
    if isinstance(source, str | Path):
        return _read_file(Path(source))
    try:
        return pd.DataFrame(source), {}, "history"
    except (ValueError, TypeError) as error:
        raise HistoryError(
            "expected a Run, a history table, a path or a watcher, got "
            f"{type(source).__name__} ({error})"
        ) from None


def _of_run(run: Run) -> dict:
    quantizer = adapter_for(run.model.quantizer).settings(run.model.quantizer)
    return in_hits(run.config.to_dict() | run.summary | quantizer)


def _read_file(path: Path) -> tuple[pd.DataFrame, dict, str]:
    settings: dict = {}
    if path.is_dir():
        folder, path = path, path / "history.csv"
        if not path.is_file():
            raise HistoryError(f"{folder} holds no history.csv")
        settings = in_hits(_json(folder / "config.json") | _json(folder / "summary.json"))
    try:
        content = path.read_bytes()  # once: it may be a pipe
    except FileNotFoundError:
        raise HistoryError(f"{path}: there is no such file") from None
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror}") from None
    return _parsed(content, path), settings, str(path)


def _parsed(content: bytes, path: Path) -> pd.DataFrame:
    if not content.strip():
        raise HistoryError(
            f"{path} is empty; expected a table with columns step, split, used_codes"
        )
    for magic, what in BINARY.items():
        if content.startswith(magic):
            raise HistoryError(f"{path} is {what}, not text: unpack it, or give the table itself")
    try:
        text = content.decode("utf-8-sig")
        if path.suffix.lower() in (".json", ".jsonl"):
            return pd.read_json(io.StringIO(text), lines=path.suffix.lower() == ".jsonl")
        first = text.split("\n", 1)[0]
        return pd.read_csv(io.StringIO(text), sep=max(",;\t", key=first.count), low_memory=False)
    except (ValueError, OSError) as error:  # the parsers' errors and UnicodeDecodeError are such
        reason = str(error).strip().splitlines()[-1]
        raise HistoryError(f"{path} cannot be read as a table: {reason}") from None


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
