"""The unit of a column, told by its name, its range and K: codes, shares, per cent, nats, bits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pandas as pd

from vqlib.diagnosis.logs import HistoryError
from vqlib.diagnosis.reading.names import Meaning, is_of_codes

ONE = 1 + 1e-6  # the largest share, with its rounding
UNITS = {"nats": (math.e, "e"), "bits": (2.0, "2")}  # of an entropy: base of its exponential


@dataclass(frozen=True)
class Column:
    """One column and what it stands for."""

    name: str
    means: Meaning
    values: pd.Series  #: floats; NaN: an empty cell
    how: str  #: for the reader, "used_codes <- 8192 - unused"


def described(column: str, m: Meaning, spelled: str | None = None) -> str:
    split = f", split {m.split}" if m.split else ""
    level = f", codebook {m.level}" if m.level is not None else ""
    return f"{m.quantity} <- {spelled or column}{split}{level}"


def size_of(columns: list[Column]) -> tuple[int | None, str]:
    """(K if the columns say it, how if no column is K's own)."""
    for column in columns:
        values = column.values.dropna().unique()
        if column.means.quantity == "codebook_size" and len(values) == 1 and values[0] >= 1:
            return int(values[0]), ""
    by = {c.means.quantity: c for c in columns if c.means.level is None}
    if {"used_codes", "unused_codes"} <= by.keys():
        total = (by["used_codes"].values + by["unused_codes"].values).dropna().unique()
        if len(total) == 1 and by["used_codes"].means.split == by["unused_codes"].means.split:
            used, unused = by["used_codes"].name, by["unused_codes"].name
            return int(total[0]), f"codebook_size <- {used} + {unused}"
    return None, ""


def converted(columns: list[Column], size: int | None, name: str, given: set) -> list[Column]:
    """Every column in the unit of the history.

    Args:
        size: K, if known. name: of the source, for messages.
        given: names of columns that the user's map names: they are not guessed at.

    Raises:
        HistoryError: a column that could be in either of two units, or cannot be in any.
    """
    out: dict[tuple, Column] = {}
    for column in columns:
        convert = _CONVERT.get(column.means.quantity, _as_it_is)
        try:
            found = convert(column, column.values.dropna(), size, column.name in given)
        except ValueError as error:
            raise HistoryError(f"{name}, column `{column.name}`: {error}") from None
        if found is None:
            continue
        key = (found.means.quantity, found.means.split, found.means.level)
        if key not in out or found.means.quantity == column.means.quantity:
            out[key] = found
    return list(out.values())


# Each takes (column, its numbers, K or None, whether the user's map names it), and returns the
# column in the history's unit, None if it is left out. A ValueError says what cannot be.


def _as_it_is(column, values, size, given) -> Column | None:
    settles = column.means.quantity == "codebook_size"
    return None if settles and values.nunique() != 1 else column


def _used(column, values, size, given) -> Column:
    """Codes; or a share, if the numbers are none of codes."""
    if column.means.per_cent:
        return _per_cent(column, values, size, given)
    share = len(values) and (values % 1 != 0).any() and values.between(0, ONE).all()
    return _turned(column, "utilization", column.values) if share else column


def _unused(column, values, size, given) -> Column:
    """K less it; or 1 less it, if the numbers are a share."""
    if column.means.per_cent or ((values % 1 != 0).any() and (values <= ONE).all()):
        return _unused_share(column, values, size, given)
    if size is None:
        raise ValueError(
            "it counts codes that are not used. Used codes are K less it, so give K as well: "
            "--codebook_size K"
        )
    if (values > size).any():
        raise ValueError(f"{values.max():g} unused codes of {size}; is codebook_size right?")
    return _turned(column, "used_codes", size - column.values, f"{size} - {column.name}")


def _unused_share(column, values, size, given) -> Column:
    if column.means.per_cent or (values > ONE).any():
        return _turned(column, "utilization", 1 - column.values / 100, f"1 - {column.name} / 100")
    return _turned(column, "utilization", 1 - column.values, f"1 - {column.name}")


def _share(column, values, size, given) -> Column:
    """A share, per cent, or a count under a share's name: told by its range and K."""
    if column.name == "utilization" or values.empty:
        return column
    if column.means.per_cent:
        return _per_cent(column, values, size, given)
    if (values <= ONE).all():
        if (values == 1).all() and not given and size != 1 and column.values.attrs.get("whole"):
            raise ValueError(_either(column, "one code, or all codes", "utilization"))
        return _turned(column, "utilization", column.values.clip(upper=1), column.name)
    whole = bool((values % 1 == 0).all())
    if (values > 100).any():
        return _turned(column, "used_codes", column.values)
    if given or not whole or (size is not None and (values > size).any()):
        return _turned(column, "utilization", column.values / 100, f"{column.name} / 100")
    raise ValueError(_either(column, "codes or per cent", "utilization_percent"))


def _per_cent(column, values, size, given) -> Column:
    sure = given or column.means.quantity == "utilization_percent"
    if not sure and values.between(0, 1).all() and (values > 0).any():
        split = f"{column.means.split}/" if column.means.split else ""
        raise ValueError(
            f"named per cent, but no number is above 1. Say which: --map {split}utilization="
            f"{column.name} (shares), or --map {split}utilization_percent={column.name}"
        )
    return _turned(column, "utilization", column.values / 100, f"{column.name} / 100")


def _either(column: Column, what: str, other: str) -> str:
    split = f"{column.means.split}/" if column.means.split else ""
    return (
        f"its numbers could be {what}. Say which: --map {split}used_codes={column.name}, or "
        f"--map {split}{other}={column.name}"
    )


def _perplexity(column, values, size, given) -> Column | None:
    sure = given or column.name == "perplexity"
    if not sure and (values < 1 - 1e-3).any():
        return None  # normalised, or of something else
    if size is not None and (values > size * 1.001).any():
        if not sure and not is_of_codes(column.name):
            return None  # a language model's, most likely
        raise ValueError(
            f"a perplexity of {values.max():g} is more than the codebook's {size} codes; expected "
            "that of one codebook's use. If it is summed over groups, give the sum of their K"
        )
    return column


def _entropy(column, values, size, given) -> Column:
    """exp of it, if its unit is known: more than ln K can only be bits."""
    unit = column.means.quantity.removeprefix("entropy_")
    if size is not None and math.log(size) * 1.001 < values.max() <= math.log2(size) * 1.001:
        unit = "bits"
    if unit not in UNITS:
        return column  # left out, or asked about if nothing else tells
    base, spelled = UNITS[unit]
    return _turned(column, "perplexity", base**column.values, f"{spelled}^{column.name}")


def _turned(column: Column, quantity: str, values: pd.Series, spelled: str | None = None) -> Column:
    m = column.means._replace(quantity=quantity, per_cent=False)
    return replace(column, means=m, values=values, how=described(column.name, m, spelled))


_CONVERT = {
    "used_codes": _used,
    "unused_codes": _unused,
    "utilization": _share,
    "utilization_percent": _per_cent,
    "unused_share": _unused_share,
    "perplexity": _perplexity,
    "entropy": _entropy,
    "entropy_nats": _entropy,
    "entropy_bits": _entropy,
}
