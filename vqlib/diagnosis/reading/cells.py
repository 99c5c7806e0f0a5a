"""What the cells of a column say: numbers, per cent, "97/128", lists, counters."""

from __future__ import annotations

import re
from datetime import date

import numpy as np
import pandas as pd

from vqlib.diagnosis.logs import HistoryError
from vqlib.diagnosis.reading.names import USE, Meaning
from vqlib.diagnosis.reading.units import Column, described

EMPTY = ("", "nan", "none", "null", "-", "n/a")  # what a cell without a number may say
MOST_LEVELS = 64  # codebooks of one model
LONGEST_SHOWN = 60  # characters of a cell in a message
FEW_CODES = 3  # fewer entries a cell are of codebooks, not of codes
FRACTION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/|\bof\b)\s*(\d+)\s*")
MULTIPLE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKM])")  # "5k" steps
TIMES = {"k": 1e3, "K": 1e3, "M": 1e6}


def of_cells(
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
                parts += of_cells(f"{column}[{i}]", m._replace(level=str(i)), cells, name)
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
            f"found {shown(values.iloc[row])}"
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


def shown(value) -> str:
    """A cell as a message shows it."""
    text = repr(value.item() if hasattr(value, "item") else value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def in_full(count):
    """5000 of "5k", "1.5M" as 1500000; anything else as it is."""
    found = MULTIPLE.fullmatch(count) if isinstance(count, str) else None
    return float(found[1]) * TIMES[found[2]] if found else count


def counter(values: pd.Series, column: str, name: str) -> pd.Series:
    """The cells of a step or an epoch as floats; NaN: an empty one.

    Raises HistoryError for what is no finite number from 0.
    """
    numbers = values
    if _holds_text(values):  # "[3]", "100/5000", "5k"
        texts = values.map(lambda v: _plain_digits(v.strip(" []")) if isinstance(v, str) else v)
        numbers = texts.map(lambda v: _fraction(v)[0] if _fraction(v) else in_full(v))
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
            f"found {shown(values.iloc[row])}"
        )
    return found
