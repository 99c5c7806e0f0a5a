"""The columns of a table, understood: the step, the split, and the use of which codebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from vqlib.diagnosis.logs import COLUMNS, KNOWN, ONE_RUN, RANGES, SPLITS, HistoryError
from vqlib.diagnosis.reading.cells import counter, of_cells, shown
from vqlib.diagnosis.reading.names import EXACT, USE, Meaning, meaning, stands_between
from vqlib.diagnosis.reading.units import Column, converted, size_of
from vqlib.quantization.names import near

MOST_COLUMNS = 10_000  # a log has tens of them
UNSAID = "train"  # the split of what names none
LISTED = 12  # names shown in a message
MOST_TABLES = 256  # codebooks that are diagnosed, each of which takes its time
EXAMPLE = 'A CSV of two lines would do: "step,used_codes", then "100,97"'


@dataclass(frozen=True)
class Reading:
    """What a source came to: a tidy table for each codebook, and how its columns were read."""

    tables: dict[str, pd.DataFrame]  #: by level; "" if there is one codebook
    settings: dict = field(default_factory=dict)  #: what the source says of `KNOWN`
    understood: tuple[str, ...] = ()  #: one line a column


def understand(
    table: pd.DataFrame,
    name: str,
    given: Mapping[str, str] | None = None,
    codebook_size: int | None = None,
) -> Reading:
    """Find the quantities of a log in the columns of ``table``.

    Args:
        table: as it was read; cells may be numbers, texts such as "12.5%" or "97/128", or lists
            with a value for each codebook.
        name: of the source, for messages.
        given: {target: column}, the user's own ``map``; targets are named as columns are, for
            example "used_codes", "val/perplexity" or "used_codes_0".
        codebook_size: K, if the user gave it.

    Raises:
        HistoryError: no column tells the use of a codebook, or one could be read in two ways.
    """
    table = _with_names(table, name)
    _of_one_run(table, name)
    given = _targets(given or {}, table, name)
    meanings = {c: given.get(c) or meaning(c) for c in table.columns}
    meanings = {c: m for c, m in meanings.items() if m is not None and _is_metric(c)}
    meanings = _without_means(meanings, table, name, set(given))
    steps, how_step = _steps(table, meanings, name, set(given))
    splits, split_column = _splits(table, meanings, name)
    if splits is None and (counted_apart := _counted_apart(table, meanings)) is not None:
        steps = steps.mask(counted_apart).ffill().bfill()
        splits = counted_apart.map({True: "val", False: "train"})
        split_column = ["split <- val, if the step alone is told and counts epochs"]
    columns = _preferred(_columns(table, meanings, name, codebook_size), set(given))
    size, how_size = (codebook_size, "") if codebook_size else size_of(columns)
    _refuse_another_size(columns, name, size)
    columns = converted(columns, size, name, set(given))
    use = [c for c in columns if c.means.quantity in ("used_codes", "utilization", "perplexity")]
    if not use:
        raise HistoryError(_nothing_found(table, name, meanings))
    use = [c for c in use if c.values.notna().any()]
    if not use:
        named = ", ".join(f"`{c}`" for c, m in meanings.items() if m.quantity in USE)
        raise HistoryError(f"{name}: there is no number in {named}")
    settings = _settings(columns, size)
    levels = list(dict.fromkeys(c.means.level or "" for c in use))
    if len(levels) > 1:  # a figure without a level is of all codebooks together
        levels = [level for level in levels if level]
        if len(levels) > MOST_TABLES:
            raise HistoryError(
                f"{name} tells of {len(levels):,} codebooks; expected at most {MOST_TABLES}"
            )
        columns = [c for c in columns if c.means.level is not None or c not in use]
    kept = [c for c in columns if c.means.quantity in COLUMNS or c.means.quantity in KNOWN]
    tables = {level: _tidy(kept, level, steps, splits) for level in levels}
    own = all(c.name == c.means.quantity for c in kept) and not table.attrs.get("notes")
    told = [how_step, *split_column, *(c.how for c in kept), how_size]
    lines = [*told, *table.attrs.get("notes", ())]
    if own and "step" in table and "split" in table:
        lines = []  # our own columns need no explanation
    return Reading(tables, settings, tuple(dict.fromkeys(filter(None, lines))))


def _with_names(table: pd.DataFrame, name: str) -> pd.DataFrame:
    if table.shape[1] > MOST_COLUMNS:
        raise HistoryError(
            f"{name} has {table.shape[1]:,} columns; expected a log, at most {MOST_COLUMNS:,}"
        )
    if table.empty:
        raise HistoryError(f"{name} has no rows")
    for column, kind in table.dtypes.items():
        if kind.kind == "c":
            raise HistoryError(f"{name}, column `{column}`: expected real numbers, found complex")
    attrs = dict(table.attrs)
    names = [str(c).strip() for c in table.columns]
    table = table.set_axis(names, axis=1).reset_index(drop=True)
    table.attrs = attrs
    twice = table.columns[table.columns.duplicated()]
    for column in twice:
        if meaning(column) is not None:
            raise HistoryError(f"{name} has two columns `{column}`")
    return table.loc[:, ~table.columns.duplicated()]


def _of_one_run(table: pd.DataFrame, name: str) -> None:
    for column in set(ONE_RUN) & set(table.columns):
        values = table[column].astype(str).unique()
        if len(values) > 1:
            raise HistoryError(
                f"{name} holds several histories: column `{column}` has {len(values)} values; "
                f"give the rows of one, for example `{column}` == {values[0]!r}"
            )


def _targets(given: Mapping[str, str], table: pd.DataFrame, name: str) -> dict[str, Meaning]:
    """{column: meaning} of the user's map."""
    found = {}
    for target, column in given.items():
        wanted = meaning(target)
        if wanted is None:
            raise HistoryError(
                f"map: {target!r} is no quantity that is known; expected one of "
                f"{', '.join(sorted({*USE, 'step', 'split', 'resets', *KNOWN}))}, with train/ or "
                "val/ before it if the column's name does not say the split"
            )
        if column not in table.columns:
            shown = ", ".join(list(table.columns)[:LISTED])
            raise HistoryError(f"map: {name} has no column {column!r}; it has {shown}")
        said = meaning(column)
        found[column] = wanted._replace(
            split=wanted.split or (said.split if said else None) or _split_in(column),
            level=wanted.level or (said.level if said else None),
        )
    return found


def _split_in(column: str) -> str | None:
    said = meaning(f"{column} perplexity")  # only for the split's word in any name
    return said.split if said else None


def _is_metric(column: str) -> bool:
    """Not one of W&B's companions of a metric."""
    return not column.endswith(("__MIN", "__MAX", "__step"))


def _without_means(
    meanings: dict[str, Meaning], table: pd.DataFrame, name: str, given: set
) -> dict[str, Meaning]:
    """Without the usage of a mean code, 1/K in any codebook.

    Raises HistoryError if nothing else tells the use: it may be a mean over codebooks.
    """
    means = [
        c
        for c, m in meanings.items()
        if m.quantity == "utilization" and c not in given and stands_between(c, table.columns)
    ]
    kept = {c: m for c, m in meanings.items() if c not in means}
    if means and not any(m.quantity in USE for m in kept.values()):
        raise HistoryError(
            f"{name}, column `{means[0]}`: its least and largest stand beside it. The mean over "
            "codes says nothing; if it is the share of the codes in use, over codebooks, say so: "
            f"--map utilization={means[0]}"
        )
    return kept


def _preferred(columns: list[Column], given: set) -> list[Column]:
    """One column for each (quantity, split, level).

    The user's own choice first, then the history's own name, then the most rows.
    """
    best: dict[tuple, Column] = {}
    for column in columns:
        m = column.means
        key = (m.quantity, m.split, m.level)
        held = best.get(key)
        if held is None or _rank(column, given) > _rank(held, given):
            best[key] = column
    return [c for c in columns if best[c.means.quantity, c.means.split, c.means.level] is c]


def _rank(column: Column, given: set) -> tuple:
    return (
        column.name in given,
        column.name == column.means.quantity,
        column.means.window != "epoch",
        int(column.values.notna().sum()),
    )


# --- step and split ---


def _steps(
    table: pd.DataFrame, meanings: dict[str, Meaning], name: str, given: set
) -> tuple[pd.Series, str]:
    """(steps, how they were found): a counter of steps, else epochs, else the rows themselves."""
    found = {q: [c for c, m in meanings.items() if m.quantity == q] for q in ("step", "epoch")}
    epoch = next(iter(found["epoch"]), None)
    if not found["step"] and epoch is None:
        return pd.Series(np.arange(len(table)) + 1.0), "step <- the rows, in their order"
    named = [*found["step"], *([epoch] if epoch else [])]
    counted = {c: counter(table[c], c, name) for c in named}
    step = max(found["step"], key=lambda c: _likely(c, counted[c], given), default=None)
    if step is None:
        return counted[epoch], f"step <- {epoch}"
    steps = counted[step]
    if epoch is not None and _starts_again(steps, counted[epoch]):
        length = steps.max() + 1
        return counted[
            epoch
        ].ffill() * length + steps.ffill(), f"step <- {epoch} x {length:g} + {step}"
    if steps.isna().any() and epoch is not None and not steps.isna().all():
        steps = steps.ffill().bfill()
    return steps, "" if step == "step" else f"step <- {step}"


def _counted_apart(table: pd.DataFrame, meanings: dict[str, Meaning]) -> pd.Series | None:
    """Rows of evaluation as MMEngine writes them: their step is an epoch's, and stands alone.

    None: there are none.
    """
    named = [c for c, m in meanings.items() if m.quantity in ("step", "epoch")]
    full = [c for c in named if table[c].notna().all()]
    others = [c for c in named if c not in full]
    if len(full) != 1 or len(others) < 2 or any(m.split for m in meanings.values()):
        return None
    alone = table[others].isna().all(axis=1)
    steps = pd.to_numeric(table[full[0]], errors="coerce")
    back = steps < steps.mask(alone).ffill()
    return alone if alone.any() and back[alone].all() else None


def _likely(column: str, steps: pd.Series, given: set) -> tuple:
    """The larger, the likelier the column counts steps; a fraction counts epochs."""
    whole = bool((steps.dropna() % 1 == 0).all())
    return column in given, column == "step", whole, int(steps.notna().sum())


def _starts_again(steps: pd.Series, epochs: pd.Series) -> bool:
    """Whether steps are counted anew in each epoch."""
    both = pd.DataFrame({"step": steps, "epoch": epochs.ffill()}).dropna()
    step, epoch = both["step"].diff(), both["epoch"].diff()
    back = step < 0
    at_ends = (epoch > 0).sum() > 0 and (step[epoch > 0] == 0).all()  # told once an epoch
    return bool((back.any() and (epoch[back] > 0).all()) or (at_ends and not back.any()))


def _splits(
    table: pd.DataFrame, meanings: dict[str, Meaning], name: str
) -> tuple[pd.Series | None, list[str]]:
    """(split of each row, or None; lines on it)."""
    for column, m in meanings.items():
        if m.quantity != "split":
            continue
        said = table[column].astype(str).str.strip().str.lower().map(SPLITS)
        if column != "split" and said.isna().any():
            continue  # a mode or a stage of something else
        if said.isna().any():
            row = int(said.isna().to_numpy().argmax())
            raise HistoryError(
                f'{name}, row {row + 1}, column `{column}`: expected "train" or "val", '
                f"found {shown(table[column].iloc[row])}"
            )
        return said, [] if column == "split" else [f"split <- {column}"]
    if any(m.split for m in meanings.values()):
        return None, []
    return None, [f"split <- none is named: all rows are {UNSAID}"]


def _columns(table, meanings, name, size) -> list[Column]:
    found = []
    for column, m in meanings.items():
        if m.quantity in ("step", "epoch", "split"):
            continue
        values = table[column]
        values.attrs["whole"] = table.attrs.get("whole", ())
        found += of_cells(column, m, values, name, size)
    return found


def _settings(columns: list[Column], size: int | None) -> dict:
    found = {"codebook_size": size} if size else {}
    for column in columns:
        values = column.values.dropna()
        if column.means.quantity in KNOWN and column.name not in EXACT and values.nunique() == 1:
            value = float(values.iloc[0])
            if value in RANGES[column.means.quantity]:
                found[column.means.quantity] = value
    return found


# --- tidy ---


def _tidy(columns: list[Column], level: str, steps, splits) -> pd.DataFrame:
    """One row a (step, split), for one codebook. Columns of no level belong to each."""
    mine = [c for c in columns if (c.means.level or "") in ("", level)]
    parts = []
    for split in ("train", "val"):
        held = {}
        for column in mine:
            values = column.values
            if column.means.split is not None:
                if column.means.split != split:
                    continue
            elif splits is not None:
                values = values.where((splits == split).to_numpy())
            elif split != UNSAID:
                continue
            held[column.means.quantity] = values
        if held:
            part = pd.DataFrame(held)
            there = part.notna().any(axis=1).to_numpy()
            part = part.assign(step=steps.to_numpy(), split=split)[there]
            parts.append(part)
    return pd.concat(parts)


def _refuse_another_size(columns: list[Column], name: str, size: int | None) -> None:
    """Raises HistoryError if "97/128" tells another K than the one given."""
    for column in columns:
        if column.means.quantity != "codebook_size" or "second number" not in column.how:
            continue
        for of in column.values.dropna().unique():
            if of != size:
                raise HistoryError(
                    f"{name}, column `{column.name}`: the second number says {of:g} codes, "
                    f"codebook_size {size}; expected one K"
                )


def _nothing_found(table, name: str, meanings) -> str:
    """Why the use of no codebook was found, and what would do."""
    named = [str(c) for c in table.columns]
    entropies = [c for c, m in meanings.items() if m.quantity == "entropy"]
    if entropies:
        one = entropies[0]
        return (
            f"{name}, column `{one}`: an entropy in nats or in bits? Say which: "
            f"--map entropy_nats={one}, or --map entropy_bits={one}"
        )
    shown = ", ".join(n[:40] for n in named[:LISTED]) + (", ..." if len(named) > LISTED else "")
    guess = near("used_codes", named[:LISTED])
    guess = guess if "did you mean" in guess else ""
    return (
        f"{name} has no column on the use of a codebook (used_codes, utilization, perplexity, ...)"
        f"{guess}; its columns are {shown}. If one of them is, say which: "
        f"--map used_codes=NAME. {EXAMPLE}"
    )
