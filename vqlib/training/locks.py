"""A folder for one process at a time: the second is refused, with the process id of the first.

The lock is a file in the folder. The system drops the lock of a process that died, and the file
stays: to unlink it would split those who wait for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

Checked = TypeVar("Checked")

NAME = ".vqlib.lock"
PATIENCE = 0.5  # seconds: somebody may only be looking, and a holder writes its id a moment later

_held: dict[Path, tuple[int, int] | None] = {}  # {folder of this process: which file is its lock}


class FolderInUse(OSError):
    """Another process or thread works in this folder. ``holder``: its process id, if known."""

    def __init__(self, message: str, holder: int | None = None):
        super().__init__(message)
        self.holder = holder


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold ``folder`` in the block; it is made, and it goes again if nothing is written to it.

    Raises FolderInUse, also inside another such block.
    """
    place = Path(folder).resolve()
    if place.exists() and not place.is_dir():
        raise NotADirectoryError(f"{folder} is a file; expected a folder")
    made = [path for path in (place, *place.parents) if not path.exists()]
    lock = _taken(place, folder)
    try:
        _held[place] = _identity(place / NAME)
        yield
    finally:
        _held.pop(place, None)
        _clear(place, made)
        lock.release()


@contextmanager
def checked(folder: Path, check: Callable[[], Checked]) -> Iterator[Checked]:
    """As `alone`, for a folder that ``check`` accepts; gives what it returns.

    It is asked before there is a lock, so that nothing is left in others' folders, and again once
    nobody else can change the answer.
    """
    if not (Path(folder) / NAME).is_file():
        check()
    with alone(folder):
        yield check()


def is_held(folder: Path) -> bool:
    """Whether somebody holds ``folder`` now. Writes nothing."""
    if not (folder / NAME).is_file():
        return False
    try:
        with FileLock(folder / NAME, blocking=False):
            return False
    except Timeout:
        return True


def confirm(folder: Path) -> None:
    """Raises FileNotFoundError if a folder that is held here was moved, deleted or replaced.

    Whoever writes on in its place would mix with others.
    """
    place = Path(folder).resolve()
    if place in _held and _held[place] != _identity(place / NAME):
        raise FileNotFoundError(f"{folder} was moved or deleted by somebody while it was in use")


def _identity(file: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = file.stat()
        return status.st_dev, status.st_ino
    return None


def _taken(place: Path, folder: Path) -> FileLock:
    """The folder's lock, with this process's id in it."""
    end = time.monotonic() + PATIENCE
    while True:
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / NAME)
        with suppress(Timeout, FileNotFoundError):  # gone again with what another has refused
            lock.acquire(timeout=PATIENCE / 5, poll_interval=0.02)
            with suppress(PermissionError), open(place / NAME, "r+", encoding="ascii") as file:
                file.truncate()
                file.write(f"{os.getpid()}\n")  # Windows keeps a locked file from being written
            return lock
        lock.release()
        if time.monotonic() > end:
            holder = _holder(place)
            who = f"process {holder}" if holder else "another process"
            raise FolderInUse(f"{folder} is in use by {who}", holder)


def _holder(place: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int((place / NAME).read_text(encoding="ascii"))
    return None


def _clear(place: Path, made: list[Path]) -> None:
    """Remove what is empty: the lock's folder, and those that were made for it."""
    with suppress(OSError):
        if [path.name for path in place.iterdir()] == [NAME]:
            (place / NAME).unlink()
            for path in made:
                path.rmdir()
