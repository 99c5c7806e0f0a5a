"""A table -> a checked Log: what happened, and what is known of the settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import wraps

import numpy as np
import pandas as pd

from vqlib.diagnosis.findings import Evidence
from vqlib.quantization.names import printable
from vqlib.quantization.ranges import Range, SettingsError, number
from vqlib.watching.columns import COLUMNS as RECORDED
from vqlib.watching.columns import Column

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "eval": "val",
    "test": "val",
}
ONE_RUN = (
    "layer",
    "seed",
    "arm",
    "run",
    "rank",
)  # columns that tell several histories in one table apart
LEAST_STRETCH = 3  # rows in a row, on average, between steps back; fewer are no restarts
CONTRADICTION = 0.05  # between used_codes / K and utilization
SIGNED = {"encoder_similarity", "cosine_error"}  # a hair below 0 by rounding
COLUMNS = RECORDED | {
    "rank_difference": Column("-", "step", "largest difference of a codebook entry between ranks")
}
"""What a file may hold: the history's own columns, and what only others can measure."""

LOOSE = {"recon_loss", "commit_loss"}  # NaN or infinity here is a symptom, not a bad file


class HistoryError(ValueError):
    """A history that cannot be examined: names the row and the column, and what is expected."""

    def __init__(self, message: str):
        super().__init__(printable(message))


@dataclass(frozen=True)
class Settings:
    """What is known of a run; None: not known. Thresholds are in hits a step.

    Every field may also stand in the history as a column of that name.
    """

    codebook_size: int | None = None  #: K
    tokens_per_step: float | None = None  #: N, tokens quantized in a training step
    dead_code_threshold: float | None = None  #: 0: no reset
    decay: float | None = None  #: of the moving averages
    reset_interval: float | None = None  #: steps
    reset_refill: float | None = None  #: hits a step, the count of a code just reset
    learning_rate: float | None = None
    below_threshold: float | None = None  #: codes whose count is overdue for a reset, at the end
    start_shrunk: float | None = None  #: share of codes hit that the first step left half as long
    dim: float | None = None  #: D, of a code
    by_gradient: float | None = None  #: 1: only an optimizer moves the codes, no moving average
    fixed_grid: float | None = None  #: 1: a lattice, whose codes do not move
    projected: float | None = None  #: 1: the codes are a trained projection of a fixed table
    gumbel: float | None = None  #: 1: training draws the codes by logits, not by distance
    processes: float | None = None  #: whose tokens the counts sum, N being those of one

    @property
    def share(self) -> float | None:
        """N/K, the hits a step of a code under uniform use, N being the tokens that are counted."""
        if self.codebook_size is None or self.tokens_per_step is None:
            return None
        return self.tokens_per_step * (self.processes or 1) / self.codebook_size


KNOWN = tuple(f.name for f in fields(Settings))
RANGES = {
    "codebook_size": Range(1, 2**31),
    "tokens_per_step": Range(1, 2**53),
    "dead_code_threshold": Range(0, 2**53),
    "decay": Range(0, 1),
    "reset_interval": Range(1, 2**53),
    "reset_refill": Range(0, 2**53),
    "learning_rate": Range(0, 1e9),
    "below_threshold": Range(0, 2**31),
    "start_shrunk": Range(0, 1),
    "dim": Range(1, 2**31),
    "by_gradient": Range(0, 1),
    "fixed_grid": Range(0, 1),
    "projected": Range(0, 1),
    "gumbel": Range(0, 1),
    "processes": Range(1, 2**31),
}


def once(ask: Callable) -> Callable:
    """A question to a log, its first argument, that is worked out once: every rule asks it."""

    @wraps(ask)
    def found(log, *args):
        key = (ask.__qualname__, *args)
        if key not in log._found:
            log._found[key] = ask(log, *args)
        return log._found[key]

    return found


@dataclass(frozen=True)
class Log:
    """One codebook's history. ``table`` holds numeric columns, sorted by step, one row a
    (step, split), with ``utilization`` filled in if K is known."""

    title: str
    table: pd.DataFrame
    settings: Settings
    understood: tuple[str, ...] = ()  #: how the source's columns were read, a line each
    _found: dict = field(init=False, default_factory=dict, repr=False, compare=False)

    @once
    def split(self, name: str) -> pd.DataFrame:
        """The split's rows, numbers alone: a column of texts makes every choice of rows slow."""
        return self.table.drop(columns="split")[(self.table["split"] == name).to_numpy()]

    @once
    def rows(self, column: str, split: str = "train") -> pd.DataFrame:
        """The split's rows in which the column holds a number."""
        rows = self.split(split)
        if column not in rows:
            return rows.head(0)
        known = rows[column].notna().to_numpy()
        return rows if known.all() else rows[known]

    @once
    def has(self, column: str, split: str = "train") -> bool:
        """Whether the column holds a number anywhere in the split."""
        return not self.rows(column, split).empty

    def best_split(self, column: str) -> str:
        """Where the column is judged: in "val" if it stands there, else in "train"."""
        return "val" if self.has(column, "val") else "train"

    @once
    def late(self, column: str, split: str = "train") -> Evidence | None:
        """Median over the end of the run: the last tenth of the rows that hold the column."""
        rows = self.rows(column, split)
        return self._median(column, rows.tail(max(1, min(1000, len(rows) // 10))), split)

    @once
    def very_end(self, column: str, split: str = "train") -> Evidence | None:
        """Median over the last 5 rows that hold the column, or a third of them (val: the last)."""
        rows = self.rows(column, split)
        return self._median(column, rows.tail(max(1, min(5, len(rows) // 3))), split)

    def highest(self, column: str, split: str = "train") -> Evidence | None:
        """The largest value of the column, and when."""
        rows = self.rows(column, split)
        if rows.empty:
            return None
        row = rows.loc[[rows[column].idxmax()]]
        return self.number(column, float(row[column].iloc[0]), row, split)

    def _median(self, column: str, rows: pd.DataFrame, split: str) -> Evidence | None:
        if rows.empty:
            return None
        rows = rows.tail(1) if split == "val" else rows
        return self.number(column, float(np.median(rows[column].to_numpy())), rows, split)

    def number(
        self, column: str, value: float, rows: pd.DataFrame, split: str, how: str = "median"
    ) -> Evidence:
        """``value`` of ``column`` over ``rows``, with its unit and window."""
        steps = rows["step"].to_numpy()
        first, last = int(steps[0]), int(steps[-1])
        span = f"step {last}" if first == last else f"{how} of steps {first} to {last}"
        unit = COLUMNS[column].unit if column in COLUMNS else ""
        return Evidence(column, value, "" if unit == "-" else unit, f"{split}, {span}")


def checked(
    table: pd.DataFrame, said: Mapping, given: Mapping, name: str, title: str | None = None
) -> Log:
    """The log of a table. ``said``: settings that its source names; ``given``: by the caller.

    Raises HistoryError, with ``name`` in it, if one of them cannot be used.
    """
    if table.empty:
        raise HistoryError(f"{name} has no rows")
    table, notes = _checked(table, name)
    settings = _merged(table, said, given)
    return Log(title or name, _with_utilization(table, settings, name), settings, notes)


def _checked(table: pd.DataFrame, name: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """(every number in its range, one row a (step, split), in order; what was left out).

    ``table`` has a column "step", and "split" of "train" and "val"; its index tells the row of
    the source, from 0.
    """
    wanted = [c for c in table if c != "split" and (c in COLUMNS or c in KNOWN)]
    numbers = {column: _numbers(table[column], column, name) for column in wanted}
    out = pd.DataFrame(numbers).assign(split=table["split"])
    kept = pd.concat([_without_restarts(rows) for _, rows in out.groupby("split", sort=False)])
    left = len(out) - len(kept)
    notes = (f"{left} rows of a run begun again were left out",) if left else ()
    out = kept
    if out.duplicated(["step", "split"]).any():
        # of several rows of a step each tells what the others leave empty
        out = out.groupby(["step", "split"], sort=False, as_index=False).last()
    return out.sort_values("step", kind="stable"), notes


def _without_restarts(rows: pd.DataFrame) -> pd.DataFrame:
    """One split's rows without those that a resumed or restarted run wrote again.

    Where steps go back now and then, all that stood at or after the step gone back to is of a
    run given up. Where they go back often, rows are merely in another order.
    """
    steps = rows["step"].to_numpy()
    back = np.flatnonzero(np.diff(steps) < 0) + 1
    if len(back) == 0 or len(steps) < LEAST_STRETCH * (len(back) + 1):
        return rows
    kept = np.ones(len(rows), dtype=bool)
    for place in back:
        kept[:place] &= steps[:place] < steps[place]
    return rows[kept]


def _numbers(values: pd.Series, column: str, name: str) -> pd.Series:
    numeric = values if values.dtype == float else _converted(values, column, name)
    if column in LOOSE:
        return numeric
    low, high, *_ = RANGES.get(column, Range(-1.0 if column in SIGNED else 0))
    if column == "utilization":
        high = 1.0
    found = numeric.to_numpy()
    if low <= found.min(initial=low) and found.max(initial=low) <= min(high, sys.float_info.max):
        return numeric  # no NaN among them either
    table = values.to_frame(column)
    _refuse(np.isinf(found), table, column, name, "a finite number")
    if column == "step":
        _refuse(np.isnan(found), table, column, name, "a number")
    percent = " (a share, not per cent)" if column == "utilization" else ""
    expected = f"at least {low:g}" if high >= 2**31 else f"between {low:g} and {high:g}{percent}"
    _refuse((found < low) | (found > high), table, column, name, expected)
    return numeric


def _converted(values: pd.Series, column: str, name: str) -> pd.Series:
    """``values`` of another type as floats; what says that it is no number becomes NaN."""
    table = values.to_frame(column)
    dated = pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_bool_dtype(values)
    _refuse(np.full(len(values), dated), table, column, name, "a number")
    numeric = pd.to_numeric(values, errors="coerce").astype(float)
    _refuse(numeric.isna() & values.notna() & ~_says_nan(values), table, column, name, "a number")
    return numeric


def _says_nan(values: pd.Series) -> pd.Series:
    if values.dtype == object:
        return values.astype(str).str.strip().str.lower().isin(["nan", "none", "null", ""])
    return pd.Series(False, index=values.index)


def _refuse(wrong, table: pd.DataFrame, column: str, name: str, expected: str) -> None:
    """Raises HistoryError naming the first row if ``wrong``."""
    wrong = np.asarray(wrong)
    if wrong.any():
        row = int(wrong.argmax())
        value = table[column].iloc[row]
        value = value.item() if hasattr(value, "item") else value
        where = f"{name}, row {table.index[row] + 1}, column `{column}`"
        raise HistoryError(f"{where}: expected {expected}, found {value!r}")


def in_hits(said: Mapping) -> dict:
    """Of ``said`` what `KNOWN` names, checked, with relative thresholds turned into hits a step.

    Raises HistoryError for a value that is no number or out of range.
    """
    known = {name: _in_range(name, said.get(name)) for name in KNOWN}
    if known["dead_code_threshold"] and said.get("reset_refill", 0) is None:
        known["reset_refill"] = known["dead_code_threshold"] + 1  # a TrainConfig's default
    if said.get("reset_relative"):
        share = Settings(**known).share  # without it the unit is not known
        for name in ("dead_code_threshold", "reset_refill"):
            known[name] = known[name] and (share and known[name] * share)
    return known


def _in_range(name: str, value):
    if value is None:
        return None
    try:
        return number(name, value, RANGES[name])
    except SettingsError as error:
        raise HistoryError(str(error)) from None


def _merged(table: pd.DataFrame, said: Mapping, given: Mapping) -> Settings:
    """Arguments first, then columns (their last value), then what the source itself says."""
    values = {name: said.get(name) for name in KNOWN}
    for name in set(KNOWN) & set(table.columns):
        column = table[name].dropna()
        if len(column):
            values[name] = float(column.iloc[-1])
    for name, value in given.items():
        if value is None:
            continue
        values[name] = _in_range(name, value)
    settings = Settings(**values)
    if settings.codebook_size is None:
        settings = replace(settings, codebook_size=_size(table))
    if settings.codebook_size is not None:
        settings = replace(settings, codebook_size=int(settings.codebook_size))
    return settings


def _size(table: pd.DataFrame) -> int | None:
    """K from rows that give both the number and the share of used codes."""
    if not {"used_codes", "utilization"} <= set(table.columns):
        return None
    ratio = (table["used_codes"] / table["utilization"]).replace(np.inf, np.nan).dropna()
    return round(ratio.median()) if len(ratio) else None


def _with_utilization(table: pd.DataFrame, settings: Settings, name: str) -> pd.DataFrame:
    size = settings.codebook_size
    if "used_codes" not in table and "utilization" not in table:
        return table.assign(used_codes=np.nan, utilization=np.nan)  # perplexity alone
    if size is None:
        return table if "utilization" in table else table.assign(utilization=np.nan)
    if "used_codes" in table:
        _refuse(
            table["used_codes"] > size,
            table,
            "used_codes",
            name,
            f"at most the codebook's {size} codes",
        )
        share = table["used_codes"] / size
        if "utilization" in table:
            apart = (share - table["utilization"]).abs() > CONTRADICTION + 1 / size
            _refuse(apart, table, "utilization", name, f"used_codes / {size}")
        return table.assign(
            utilization=table["utilization"].fillna(share) if "utilization" in table else share
        )
    return table.assign(used_codes=(table["utilization"] * size).round())
