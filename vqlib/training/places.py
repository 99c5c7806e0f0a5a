"""Where things are: the package, the repository, and the folders that runs are kept in."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
PARENT = PACKAGE.parent
"""The folder that vqlib lies in: a repository, or an environment's site-packages."""


def cache_dir() -> Path:
    """Runs of experiments: $VQLIB_CACHE, else the repository's data/cache, else ~/.cache/vqlib."""
    return _folder("VQLIB_CACHE", "cache", Path.home() / ".cache" / "vqlib")


def runs_dir() -> Path:
    """Runs of a person: $VQLIB_RUNS, else the repository's data/runs, else ~/vqlib-runs."""
    return _folder("VQLIB_RUNS", "runs", Path.home() / "vqlib-runs")


def repository() -> Path | None:
    """The repository that vqlib runs from; None if it is installed without one."""
    return PARENT if (PARENT / "pyproject.toml").is_file() else None


def python_path() -> dict[str, str]:
    """What another process needs in its environment to import this very vqlib."""
    if PARENT.name == "site-packages":
        return {}
    paths = filter(None, [str(PARENT), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": os.pathsep.join(paths)}


def _folder(variable: str, inside: str, outside: Path) -> Path:
    if given := os.environ.get(variable):
        return Path(given)
    root = repository()
    return root / "data" / inside if root else outside
