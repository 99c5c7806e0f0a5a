"""How the benchmarks say whether a ratio keeps its goal."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

RED, PLAIN = "\033[31m", "\033[0m"


def within(ratio: float, goal: float, *, least: bool = False) -> str:
    """``ratio`` as text; red, and marked, if it is above its ``goal`` (``least``: below)."""
    missed = ratio < goal if least else ratio > goal
    text = f"{ratio:.2f}{'!' if missed else ''}"
    return f"{RED}{text}{PLAIN}" if missed and sys.stdout.isatty() else text


def versions(*packages: str) -> str:
    """Their names and versions, those that are not installed too."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} is not installed")
    return ", ".join(found)
