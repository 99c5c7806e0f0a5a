"""What the benchmarks found, beside its goals."""

from __future__ import annotations

import sys
from typing import NamedTuple

from vqlib.extras import installed

RED, PLAIN = "\033[31m", "\033[0m"


class Found(NamedTuple):
    """A ratio and its goal."""

    what: str
    value: float
    goal: float
    least: bool

    @property
    def missed(self) -> bool:
        return self.value < self.goal if self.least else self.value > self.goal

    @property
    def text(self) -> str:
        """The value; marked, and red in a terminal, if it misses its goal."""
        text = f"{self.value:.3g}{'!' if self.missed else ''}"
        return f"{RED}{text}{PLAIN}" if self.missed and sys.stdout.isatty() else text


FOUND: list[Found] = []  # by all benchmarks of this process


def within(value: float, goal: float, what: str, *, least: bool = False) -> str:
    """``value`` of ``what`` as text, at most ``goal`` (``least``: at least). It is remembered."""
    FOUND.append(Found(what, value, goal, least))
    return FOUND[-1].text


def table() -> str:
    """All that was found, a line each."""
    rows = [f"{'what':58}{'found':>9}   goal"]
    for found in FOUND:
        bound = "at least" if found.least else "at most"
        rows.append(f"{found.what:58}{found.text:>9}   {bound} {found.goal:g}")
    return "\n".join(rows)


def versions(*packages: str) -> str:
    """Their names and versions, those that are not installed too."""
    return ", ".join(f"{name} {installed(name) or 'is not installed'}" for name in packages)
