"""The columns of a table, understood: the step, the split, and the use of which codebook."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pandas as pd

from vqlib.diagnosis.logs import COLUMNS, KNOWN, ONE_RUN, RANGES, SPLITS, HistoryError
from vqlib.diagnosis.reading.names import EXACT, USE, Meaning, meaning
from vqlib.diagnosis.reading.units import Column, converted, described, size_of
from vqlib.quantization.names import near

MOST_COLUMNS = 10_000  # a log has tens of them
EMPTY = ("", "nan", "none", "null", "-", "n/a")  # what a cell without a number may say
UNSAID = "train"  # the split of what names none
LISTED = 12  # names shown in a message
MOST_LEVELS = 64  # codebooks of one model
MOST_TABLES = 256  # codebooks that are diagnosed, each of which takes its time
LONGEST_SHOWN = 60  # characters of a cell in a message
FEW_CODES = 3  # fewer entries a cell are of codebooks, not of codes
EXAMPLE = 'A CSV of two lines would do: "step,used_codes", then "100,97"'
FRACTION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/|\bof\b)\s*(\d+)\s*")
NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*%?\s*")


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
    steps, how_step = _steps(table, meanings, name, set(given))
    splits, split_column = _splits(table, meanings, name)
    if splits is None and (counted_apart := _counted_apart(table, meanings)) is not None:
        steps = steps.mask(counted_apart).ffill().bfill()
        splits = counted_apart.map({True: "val", False: "train"})
        split_column = ["split <- val, if the step alone is told and counts epochs"]
    columns = _preferred(_columns(table, meanings, name, codebook_size), set(given))
    size = codebook_size or size_of(columns)
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
    lines = [how_step, *split_column, *(c.how for c in kept), *table.attrs.get("notes", ())]
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
    counted = {c: _counter(table[c], c, name) for c in named}
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


def _counter(values: pd.Series, column: str, name: str) -> pd.Series:
    numbers = values
    if _holds_text(values):  # "[3]", "100/5000"
        texts = values.map(lambda v: _plain_digits(v.strip(" []")) if isinstance(v, str) else v)
        numbers = texts.map(lambda v: _fraction(v)[0] if _fraction(v) else v)
    found = _floats(numbers)
    wrong = found.isna() & numbers.notna() & (numbers.astype(str).str.strip() != "")
    wrong |= np.isinf(found) | (found < 0) | _no_numbers(values)
    if wrong.any():
        row = int(np.argmax(wrong.to_numpy()))
        found[_no_numbers(values)] = np.nan
        expected = "a finite number" if np.isinf(found[row]) else "at least 0"
        expected = "a number" if np.isnan(found[row]) else expected
        raise HistoryError(
            f"{name}, row {row + 1}, column `{column}`: expected {expected}, "
            f"found {_shown(values.iloc[row])}"
        )
    return found


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
                f"found {_shown(table[column].iloc[row])}"
            )
        return said, [] if column == "split" else [f"split <- {column}"]
    if any(m.split for m in meanings.values()):
        return None, []
    return None, [f"split <- none is named: all rows are {UNSAID}"]


# --- cells ---


def _columns(table, meanings, name, size) -> list[Column]:
    found = []
    for column, m in meanings.items():
        if m.quantity in ("step", "epoch", "split"):
            continue
        values = table[column]
        values.attrs["whole"] = table.attrs.get("whole", ())
        found += _of_cells(column, m, values, name, size)
    return found


def _of_cells(
    column: str, m: Meaning, values: pd.Series, name: str, size: int | None = None
) -> list[Column]:
    """The column; one for each codebook if its cells hold lists; K beside it if they hold n/K."""
    if _holds_text(values):
        lists = values.map(_list)
        if lists.notna().any():
            if m.quantity in USE and (spread := _spread(lists, size)) is not None:
                return _of_spread(column, m, spread)
            width = int(lists.dropna().map(len).max())
            parts = []
            for i in range(width):
                cells = lists.map(lambda c, i=i: c[i] if c is not None and i < len(c) else None)
                parts += _of_cells(f"{column}[{i}]", m._replace(level=str(i)), cells, name)
            return parts
    fractions = values.map(_fraction) if _holds_text(values) else pd.Series([None])
    if fractions.notna().any():
        return _of_fractions(column, m, values, fractions, name)
    per_cent = m.per_cent
    if _holds_text(values):
        texts = values.astype(str).str.strip()
        per_cent |= bool(texts.str.endswith("%").any())
        values = values.map(
            lambda v: _plain_digits(v.strip().removesuffix("%")) if isinstance(v, str) else v
        )
    written = values
    numbers = _numbers(values, column, name)
    numbers.attrs["whole"] = _whole(written)
    return [Column(column, m._replace(per_cent=per_cent), numbers, described(column, m))]


def _spread(lists: pd.Series, size: int | None) -> pd.DataFrame | None:
    """(rows, K) if the lists tell of each code and not of each codebook; None if they do not.

    They do if there are K whole numbers, if shares sum to 1, or if there are too many entries
    for codebooks. A sum in one row alone may be chance.
    """
    widths = lists.dropna().map(len)
    several = widths.nunique() == 1 and (widths.iloc[0] == size or len(widths) > 1)
    if not several or widths.iloc[0] < FEW_CODES:
        return None
    try:
        rows = pd.DataFrame(
            lists.map(lambda c: [np.nan] * widths.iloc[0] if c is None else c).tolist()
        )
        rows = rows.astype(float)
    except (TypeError, ValueError):
        return None
    held = rows.dropna()
    shares = bool((held.sum(axis=1) - 1).abs().lt(1e-3).all())
    counts = widths.iloc[0] == size and bool((held % 1 == 0).all(axis=None))
    return rows if shares or counts or widths.iloc[0] > MOST_LEVELS else None


def _of_spread(column: str, m: Meaning, rows: pd.DataFrame) -> list[Column]:
    """Their perplexity; the codes in use too if hits are counted, for a mean of hits never is 0."""
    share = rows.div(rows.sum(axis=1), axis=0)
    entropy = -(share * np.log(share.where(share > 0))).sum(axis=1, skipna=True)
    found = {"perplexity": np.exp(entropy).where(rows.notna().all(axis=1))}
    if (rows.dropna() % 1 == 0).all(axis=None):
        found["used_codes"] = rows.gt(0).sum(axis=1).where(rows.notna().all(axis=1)).astype(float)
    of = f"{column}, {rows.shape[1]} numbers a cell, one a code"
    size = pd.Series(float(rows.shape[1]), index=rows.index)
    size_said = m._replace(quantity="codebook_size", per_cent=False)
    columns = [Column(column, size_said, size, f"codebook_size <- {rows.shape[1]}")]
    for quantity, values in found.items():
        said = m._replace(quantity=quantity, per_cent=False)
        columns.append(Column(column, said, values, described(column, said, of)))
    return columns


def _whole(values: pd.Series) -> bool:
    """Whether the cells are written without a decimal point."""
    if _holds_text(values):
        held = values.dropna()
        return all(isinstance(v, int) or (isinstance(v, str) and "." not in v) for v in held)
    return pd.api.types.is_integer_dtype(values) or values.name in values.attrs.get("whole", ())


def _of_fractions(column, m: Meaning, values, fractions, name) -> list[Column]:
    """ "97/128" tells the number of codes and K."""
    if m.quantity not in USE:
        return []
    over = fractions.map(lambda f: f[0] if f else np.nan).astype(float)
    size = fractions.map(lambda f: f[1] if f else np.nan).astype(float)
    unused = m.quantity in ("unused_codes", "unused_share")
    quantity = "unused_codes" if unused else "used_codes"
    quantity = "perplexity" if m.quantity == "perplexity" else quantity
    codes = m._replace(quantity=quantity, per_cent=False)
    return [
        Column(column, codes, over, described(column, codes)),
        Column(
            column,
            m._replace(quantity="codebook_size", per_cent=False),
            size,
            f"codebook_size <- {size.max():g}, the second number of {column}",
        ),
    ]


def _numbers(values: pd.Series, column: str, name: str) -> pd.Series:
    numbers = _floats(values)
    unread = (numbers.isna() & values.notna()).to_numpy(copy=True)
    # only these as text: a million numbers would take seconds
    texts = values[unread].astype(str).str.strip().str.lower()
    unread[unread] = ~texts.isin(EMPTY).to_numpy()
    wrong = unread | _no_numbers(values)
    if wrong.any():
        row = int(np.argmax(wrong.to_numpy()))
        raise HistoryError(
            f"{name}, row {row + 1}, column `{column}`: expected a number, "
            f"found {_shown(values.iloc[row])}"
        )
    return numbers


def _floats(values: pd.Series) -> pd.Series:
    """NaN for what is no number, or one that no float can hold."""
    try:
        return pd.to_numeric(values, errors="coerce").astype(float)
    except (OverflowError, TypeError, ValueError):  # one cell spoils all: each alone
        return values.map(_float).astype(float)


def _float(value) -> float:
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        return np.nan


def _plain_digits(text: str) -> str:
    """A number without the commas between its thousands."""
    return text.replace(",", "") if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?", text) else text


def _holds_text(values: pd.Series) -> bool:
    """Whether cells may be texts or lists."""
    return values.dtype == object or pd.api.types.is_string_dtype(values)


def _no_numbers(values: pd.Series) -> pd.Series:
    """Which cells are dates or truth values, that pandas would turn into numbers."""
    if _holds_text(values):
        return values.map(lambda v: isinstance(v, bool | np.bool_ | date))
    dated = pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_bool_dtype(values)
    return pd.Series(dated, index=values.index)


def _fraction(value) -> tuple[float, float] | None:
    if not isinstance(value, str) or not (found := FRACTION.fullmatch(value)):
        return None
    return float(found[1]), float(found[2])


def _list(value) -> list | None:
    if isinstance(value, list | tuple | np.ndarray):
        return list(value)
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        return [part for part in re.split(r"[,\s]+", value.strip()[1:-1].strip()) if part]
    return None


def _shown(value) -> str:
    text = repr(value.item() if hasattr(value, "item") else value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


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
