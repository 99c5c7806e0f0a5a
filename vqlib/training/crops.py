"""Crops of picture files, kept in the cache folder: a picture is decoded once, not once an epoch.

A cache is one .npy file, memory-mapped, with a row for each crop: its pixels and a digest over
them and over the file's size and time. A row whose digest does not fit is not there: the picture
was never decoded, it has changed since, or whoever wrote the row was killed. So rows are written
as pictures are decoded, by any number of processes at once, without a lock. Only an empty cache
is made under one, and it is moved to its place when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from filelock import FileLock

from vqlib.training.files import atomic, clear
from vqlib.training.places import cache_dir

MOST_BYTES = 4 * 2**30
"""Of all caches together; those unused for longest go first. 450,000 crops of 56 pixels."""

PATIENCE = 10  # seconds to wait for another process, which makes an empty file
DIGEST = 16  # bytes


class CropCache:
    """Crops of some picture files.

    Args:
        key: plain values that decide the crops, besides the files' content: where they are, what
            is cut out, and how they are decoded.
        files: what the file of each crop is known by, such as its size and time.
        shape: of a crop, which is uint8.

    Where nothing can be kept, on a full or read-only disk, one warning says so; then `get` finds
    only what was kept before.
    """

    def __init__(self, key: Sequence, files: Sequence, shape: tuple[int, ...]):
        self._given = key, files, shape
        self._files = [json.dumps(file).encode() for file in files]
        self._row = np.dtype([("digest", "u1", DIGEST), ("pixels", "u1", shape)])
        name = hashlib.sha256(json.dumps([key, len(files), shape]).encode()).hexdigest()[:24]
        self.path = (cache_dir() / "crops" / f"{name}.npy").absolute()
        self._rows: np.memmap | None = None
        self._keeps = True
        try:
            self._open()
        except (OSError, NotImplementedError) as error:  # the latter: a disk without locks
            self._give_up(error)

    def __reduce__(self):  # a map would be pickled as what it holds
        return type(self), self._given

    def get(self, index: int) -> np.ndarray | None:
        """A crop; None if it is not kept."""
        if self._rows is None or os.fstat(self._file).st_size < self._end:
            return None  # to read past the end of a file that was cut would kill the process
        row = self._rows[index].copy()
        pixels = row["pixels"]
        return pixels if row["digest"].tobytes() == self._digest(index, pixels) else None

    def put(self, index: int, pixels: np.ndarray) -> None:
        """Keep a crop."""
        if not self._keeps:
            return
        content = self._digest(index, pixels) + pixels.tobytes()
        place = self._rows.offset + index * self._row.itemsize
        try:
            if self._refusal is not None:
                raise self._refusal
            # not through the map: a full disk would kill the process
            if os.pwrite(self._file, content, place) < len(content):
                raise OSError("the disk is full")
        except OSError as error:
            self._give_up(error)

    def _digest(self, index: int, pixels: np.ndarray) -> bytes:
        digest = hashlib.blake2b(self._files[index], digest_size=DIGEST)
        digest.update(np.ascontiguousarray(pixels))
        return digest.digest()

    def _open(self) -> None:
        """Map the file, made if need be. Raises OSError if that cannot be."""
        if not self._map():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.parent / ".lock", timeout=PATIENCE):
                if not self._map():  # nobody has made it meanwhile
                    self._make()
                    if not self._map():
                        raise OSError("it is not found there once it is written")
        with suppress(OSError):  # somebody else's folder can be read all the same
            os.utime(self.path)

    def _map(self) -> bool:
        """Whether there is a whole file, which is then mapped."""
        with suppress(OSError, ValueError):
            rows = np.lib.format.open_memmap(self.path, mode="r")
            if (rows.dtype, rows.shape) == (self._row, (len(self._files),)):
                self._file, self._refusal = _descriptor(self.path)
                weakref.finalize(self, os.close, self._file)
                self._rows, self._end = rows, rows.offset + rows.nbytes
                return True
        return False

    def _make(self) -> None:
        """A file of empty rows. Raises OSError if there is no room for it."""
        size = len(self._files) * self._row.itemsize
        if size > MOST_BYTES:
            raise OSError(f"they would take {size:,} bytes, and the limit is {MOST_BYTES:,}")
        clear(self.path.parent)
        _make_room(self.path.parent, size)
        with atomic(self.path) as temporary:
            np.lib.format.open_memmap(temporary, "w+", self._row, (len(self._files),))

    def _give_up(self, error: Exception) -> None:
        self._keeps = False
        why = getattr(error, "strerror", None) or error
        _warn_once(
            f"crops of pictures cannot be kept in {self.path.parent}: {why}; "
            "pictures are decoded whenever they are used"
        )


def _descriptor(path: Path) -> tuple[int, OSError | None]:
    """Of a file opened to read and write; or to read alone, and why."""
    try:
        return os.open(path, os.O_RDWR), None
    except OSError as refusal:
        return os.open(path, os.O_RDONLY), refusal


def _make_room(folder: Path, size: int) -> None:
    """Remove the files unused for longest until ``size`` bytes more are within the limit."""
    found = [(file.stat(), file) for file in folder.iterdir() if file.name != ".lock"]
    found.sort(key=lambda pair: pair[0].st_mtime_ns)
    total = size + sum(status.st_size for status, _ in found)
    for status, file in found:
        if total <= MOST_BYTES:
            break
        file.unlink(missing_ok=True)  # whoever has it mapped keeps it till then
        total -= status.st_size


@cache
def _warn_once(text: str) -> None:
    warnings.warn(text, stacklevel=4)
