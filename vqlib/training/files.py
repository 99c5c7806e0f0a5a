"""Files that survive: written whole or not at all, and read without executing anything."""

from __future__ import annotations

import json
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path

_UMASK = os.umask(0o077)
os.umask(_UMASK)  # it can only be read by setting it

PART = ".part"  # the end of a temporary file's name
_NAME_OF_PART = re.compile(rf"\.[\w.-]+\.\w{{8}}{re.escape(PART)}")


@contextmanager
def atomic(path: Path):
    """A temporary path beside ``path``, which takes its place only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_part(path: Path) -> bool:
    """Whether it is a temporary file of `atomic`: if nobody writes now, one that was killed."""
    return bool(_NAME_OF_PART.fullmatch(path.name))


def clear(folder: Path) -> None:
    """Remove what killed writers left in a folder in which nobody writes now."""
    for path in folder.iterdir():
        if is_part(path):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict:
    """The object in a JSON file. Raises OSError, or ValueError if there is anything else in it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: expected an object, found {str(found)[:40]}")
    return found
