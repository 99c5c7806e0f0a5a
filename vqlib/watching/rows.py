"""Rows of a history while it grows: how they are told, put together, and kept few."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from vqlib.watching.track import OutOfRange

SUMMED = ("resets", "re_resets", "premature")  # counted since the row before
LARGEST = ("duplicates", "longest_code")  # judged by their worst


class Listener:
    """A callable of the user's that cannot end the training: its first exception is a warning.

    Args:
        call: what is called. name: what the warning names it, such as "on_row".
    """

    def __init__(self, call: Callable, name: str):
        if not callable(call):
            raise TypeError(f"{name} must be callable, got {type(call).__name__}")
        self.call, self.name, self.failed = call, name, False

    def __call__(self, *args) -> None:
        try:
            self.call(*args)
        except OutOfRange:  # an error of the adapter, which the training is to see
            raise
        except Exception as error:
            if self.failed:
                return
            self.failed = True
            warnings.warn(
                f"{self.name} ({_named(self.call)}) raised {type(error).__name__}: {error}. "
                "Training goes on; it is called again, and further errors are not shown.",
                stacklevel=2,
            )


def _named(call: Callable) -> str:
    return getattr(call, "__qualname__", None) or type(call).__qualname__


def told(layer: str, row: dict) -> dict:
    """A ``row`` as it is handed out: a copy with its ``layer``, without what is not known."""
    return {"layer": layer} | {name: value for name, value in row.items() if value == value}


def merged(earlier: dict, later: dict) -> dict:
    """One row for two of the same split: the later, but with what happened in both."""
    row = earlier | later
    both = earlier.keys() & later.keys()
    row |= {name: earlier[name] + later[name] for name in SUMMED if name in both}
    row |= {name: max(earlier[name], later[name]) for name in LARGEST if name in both}
    if "survived" in both:
        weight, more = (r.get("resets", 0) + 1e-9 for r in (earlier, later))
        row["survived"] = (weight * earlier["survived"] + more * later["survived"]) / (
            weight + more
        )
    return row


class Thinned:
    """The rows of one split, however many they are, as at most ``HEAD + MOST + 1``.

    The first ones stay as they are, for they show how a run started. Of the others, each row
    kept stands for the same number of rows, which doubles when there are too many.
    """

    HEAD, MOST = 20, 1000

    def __init__(self):
        self._head: list[dict] = []
        self._kept: list[dict] = []
        self._open: dict = {}  # stands for fewer rows than the others as yet
        self._in_open, self._stride = 0, 1

    def add(self, row: dict) -> None:
        """Take in the next row; it holds only what is known."""
        if len(self._head) < self.HEAD:
            self._head.append(row)
            return
        self._open = merged(self._open, row)
        self._in_open += 1
        if self._in_open < self._stride:
            return
        self._kept.append(self._open)
        self._open, self._in_open = {}, 0
        if len(self._kept) == self.MOST:
            pairs = zip(self._kept[::2], self._kept[1::2], strict=True)
            self._kept = [merged(*pair) for pair in pairs]
            self._stride *= 2

    @property
    def rows(self) -> list[dict]:
        return self._head + self._kept + ([self._open] if self._in_open else [])
