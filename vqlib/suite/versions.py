"""Which packages, in which versions, the numbers of a notebook depend on."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from vqlib import extras
from vqlib.suite import cellcode, profiles


def installed(package: str) -> str:
    """The version of an installed package; empty if it is not there."""
    return extras.installed(package) or ""


def imported(sources: Iterable[Path]) -> dict[str, str]:
    """{distribution: version} of what the code of the notebooks imports by name."""
    modules = set().union(*(cellcode.imports(profiles.read(path)) for path in sources))
    names = {name for module in modules for name in _distributions().get(module, ())}
    return {name: installed(name) for name in sorted(names, key=str.lower)}


def depended_on(notebook: Path) -> dict[str, str]:
    """{distribution: version} of what the numbers of the notebook depend on."""
    ours = {name: installed(name) for name in ("vqlib", "torch")}
    return ours | imported([notebook])


# asking every installed package takes a third of a second
_distributions = cache(metadata.packages_distributions)
