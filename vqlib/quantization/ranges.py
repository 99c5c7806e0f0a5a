"""What a setting may be: said beside the field, checked in one way, refused by the field's name.

A dataclass writes its ranges into its annotations and calls `check_fields`::

    decay: Annotated[float, Range(0, 1)] = 0.9
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from types import NoneType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

LARGEST = 2**63 - 1  # whole number


class SettingsError(ValueError):
    """A setting that cannot be: the message names it, its value and what is allowed.

    Attributes:
        field: the setting's name; "" if it is about no single one.
    """

    def __init__(self, message: str, field: str = ""):
        super().__init__(message)
        self.field = field


class Range(NamedTuple):
    """Numbers from ``low`` to ``high``; ``above``: without ``low`` itself, ``below``: without
    ``high``. Infinity never belongs to it, nor a whole number that a tensor cannot hold."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        excluded = (self.above and value == self.low) or (self.below and value == self.high)
        held = value <= LARGEST if isinstance(value, numbers.Integral) else math.isfinite(value)
        return self.low <= value <= self.high and not excluded and held

    def __str__(self) -> str:
        low, high = (str(n) if isinstance(n, int) else f"{n:g}" for n in self[:2])
        if self.high == math.inf:
            return f"above {low}" if self.above else f"of at least {low}"
        if not (self.above or self.below):
            return f"from {low} to {high}"
        start = "above" if self.above else "of at least"
        return f"{start} {low} and {'below' if self.below else 'at most'} {high}"


@overload
def number(field: str, value: Any, allowed: Range, *, whole: Literal[True]) -> int: ...
@overload
def number(field: str, value: Any, allowed: Range, *, whole: bool = False) -> int | float: ...
def number(field: str, value: Any, allowed: Range, *, whole: bool = False) -> int | float:
    """``value`` as a plain int or float. Raises SettingsError if it is not ``allowed``."""
    kind: Any = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or value not in allowed:
        noun = "a whole number" if whole else "a number"
        raise SettingsError(f"{field} must be {noun} {allowed}, got {shown(value)}", field)
    if isinstance(value, (int, float)):
        return value
    return int(value) if whole else float(value)  # NumPy's, which JSON does not know


def shown(value: Any) -> str:
    """``value`` as an error names it: on one line, however large it is."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # a whole number of too many digits
        text = f"a number of {value.bit_length()} bits"
    return text if len(text) <= 80 else f"{text[:70]}... ({type(value).__name__})"


def not_dense(value: Any) -> str:
    """What ``value`` is instead of a tensor that holds its numbers; "" if it is one."""
    layout = getattr(value, "layout", None)
    if layout is None or not hasattr(value, "is_meta"):
        return type(value).__name__
    if value.is_meta:
        return "one on the meta device"
    return "" if str(layout) == "torch.strided" else f"one of layout {layout}"


def whole(field: str, value: Any, least: int = 1) -> int:
    """``value`` as a plain int of at least ``least``. Raises SettingsError as `number`."""
    return number(field, value, Range(least), whole=True)


def one_of(field: str, value: Any, choices: Iterable[Any]) -> Any:
    """``value`` itself. Raises SettingsError if it is none of ``choices``."""
    choices = tuple(choices)
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise SettingsError(f"{field} must be one of {known}, got {shown(value)}", field)
    return value


def switch(field: str, value: Any) -> bool:
    """``value`` itself. Raises SettingsError if it is neither True nor False."""
    if not isinstance(value, bool):
        raise SettingsError(f"{field} must be True or False, got {shown(value)}", field)
    return value


def check_fields(settings: Any) -> None:
    """Check a dataclass's fields that are annotated with a `Range`, a Literal, bool or str.

    Numbers become plain ones, in a frozen dataclass too. Raises SettingsError.
    """
    for name, hint in hints(type(settings)).items():
        value = getattr(settings, name)
        if get_origin(hint) is Annotated:
            kind, allowed = get_args(hint)
            kinds = get_args(kind) or (kind,)
            if value is not None or NoneType not in kinds:
                plain = number(name, value, allowed, whole=int in kinds)
                object.__setattr__(settings, name, plain)
        elif get_origin(hint) is Literal:
            one_of(name, value, get_args(hint))
        elif hint is bool:
            switch(name, value)
        elif str in (hint, *get_args(hint)) and not isinstance(value, get_args(hint) or str):
            raise SettingsError(f"{name} must be a text, got {shown(value)}", name)


@cache
def hints(kind: type) -> dict[str, Any]:
    """{field: its annotation} of a dataclass."""
    found = get_type_hints(kind, include_extras=True)
    return {f.name: found[f.name] for f in fields(kind)}
