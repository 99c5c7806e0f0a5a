"""Which files of a folder are ours: those that we wrote and that nobody has changed since.

A note in the folder holds the digests. Only what it vouches for is ever replaced or deleted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vqlib.suite.errors import SuiteError
from vqlib.training.files import clear, read_json, write_text

NOTE = ".written-by-vqlib.json"


def refuse_others(folder: Path, names: Iterable[str] | None = None) -> None:
    """Raises SuiteError if files of ``folder``, or those called ``names``, are not ours.

    An absent file is nobody's.
    """
    strange = next(_not_ours(folder, names), None)
    if strange is not None:
        raise SuiteError(
            f"{strange} was not written by vqlib, or was changed since, and is not overwritten; "
            "move it away or choose another --out"
        )


def sign(folder: Path, files: Mapping[str, Path]) -> None:
    """Vouch for ``files``, {name in ``folder``: a file whose bytes stand there or soon will}.

    Signed before they are moved in: killed in between, the earlier files are still vouched for.
    """
    clear(folder)  # of notes that were half written
    said = _signed(folder)
    for name, path in files.items():
        said[name] = [*said.get(name, [])[-1:], _digest(path)]
    write_text(folder / NOTE, json.dumps({"files": said}, indent=1) + "\n")


def sign_all(folder: Path) -> None:
    """Vouch for every file in ``folder``."""
    sign(folder, {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()})


def _not_ours(folder: Path, names: Iterable[str] | None) -> Iterator[Path]:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        yield folder
        return
    said = _signed(folder)
    every = (p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if not p.is_dir())
    for name in every if names is None else names:
        path = folder / name
        known = name == NOTE or (path.is_file() and said.get(name) and _digest(path) in said[name])
        if not known and (path.exists() or path.is_symlink()):
            yield path


def _signed(folder: Path) -> dict[str, list[str]]:
    try:
        files = read_json(folder / NOTE)["files"]
        return {str(name): list(digests) for name, digests in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
