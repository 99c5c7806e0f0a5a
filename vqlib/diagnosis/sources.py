"""A Run, a table, a file or a run's folder, opened: a checked log for each codebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from vqlib.diagnosis.logs import KNOWN, RANGES, HistoryError, Log, checked, in_hits
from vqlib.diagnosis.reading.columns import understand
from vqlib.diagnosis.reading.files import read_file
from vqlib.diagnosis.reading.folders import read_folder
from vqlib.diagnosis.reading.names import meaning
from vqlib.quantization.ranges import shown
from vqlib.training.runs import Run
from vqlib.watching.adapters import adapter_for


def read(source, title: str | None = None, **given) -> Log:
    """The log of a source that tells of one codebook; see `read_all`."""
    (log,) = read_all(source, title, **given).values()
    return log


def read_all(
    source, title: str | None = None, map: Mapping[str, str] | None = None, **given
) -> dict[str, Log]:
    """{codebook: its checked log} of a `Run`, a table, or a file or run folder.

    One codebook has the name "".

    Args:
        source: a Run; a DataFrame or what makes one; the path of a log, or of a run's folder.
        map: {quantity: column}, for columns whose names are not understood.
        given: any of `KNOWN`; they go before what the source says.

    Raises:
        HistoryError: the source or an argument cannot be used.
    """
    if map is not None and not isinstance(map, Mapping):
        raise HistoryError(f"map must be a dict {{quantity: column}} or None, got {shown(map)}")
    table, settings, name = _open(source, map)
    size = given.get("codebook_size") or settings.get("codebook_size")
    reading = understand(table, name, map, size if isinstance(size, int) else None)
    settings = settings | {k: v for k, v in reading.settings.items() if settings.get(k) is None}
    logs = {}
    for level, rows in reading.tables.items():
        log = checked(rows, settings, given, name, title)
        logs[level] = replace(log, understood=(*reading.understood, *log.understood))
    return logs


def _open(source, map: Mapping[str, str] | None = None) -> tuple[pd.DataFrame, dict, str]:
    if isinstance(source, Run):
        return source.history, _of_run(source), "run"
    if isinstance(source, pd.DataFrame):
        return source, {}, "history"
    if isinstance(source, str | Path):
        if source == "":  # as a path it would be the current folder
            raise HistoryError("expected the path of a log or of a run's folder, got an empty one")
        path = Path(source)
        if _is_folder(path):
            table, said, place = read_folder(path)
            return table, _settings(said), place
        return read_file(path, map), {}, str(path)
    try:
        return pd.DataFrame(source), {}, "history"
    except (ValueError, TypeError) as error:
        raise HistoryError(
            "expected a Run, a history table, a path or a watcher, got "
            f"{type(source).__name__} ({error})"
        ) from None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _of_run(run: Run) -> dict:
    quantizer = adapter_for(run.model.quantizer).settings(run.model.quantizer)
    return in_hits(run.config.to_dict() | run.summary | quantizer)


def _settings(said: dict) -> dict:
    """What a run's own configuration says, by whatever name, if it is in range."""
    found = dict(said)
    for name, value in said.items():
        known = None if name == "dim" else meaning(str(name))
        if known is not None and known.quantity in KNOWN and known.quantity not in said:
            found[known.quantity] = value
        elif known is not None and known.quantity == "dim" and isinstance(value, int):
            found["dim"] = value  # codebook_dim, beside a "dim" that may be the model's
    for name in KNOWN:
        value = found.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in found and name not in said and not (number and value in RANGES[name]):
            del found[name]
    return in_hits(found)
