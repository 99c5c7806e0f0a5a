"""Slots: as many runs train at once as the machine has cores, over all of its processes.

A slot is a locked file in the cache folder, so all that share this folder on one machine share
its cores. The system drops the lock of a process that died.

In one process one thread at a time holds a slot, as torch's threads and its global generator
belong to the process. A thread that waits for another's run lends its slot meanwhile. So whoever
holds a slot waits for nobody, and there is no deadlock.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import joblib
from filelock import FileLock, Timeout

from vqlib.quantization.ranges import whole

PAUSE = 0.05  # seconds between two looks for a free slot

_of_this_thread = threading.local()
_one_in_a_process = threading.Lock()


def jobs() -> int:
    """How many runs one call trains at once: $VQLIB_JOBS, else as many as there are cores.

    Raises SettingsError if $VQLIB_JOBS is no whole number of at least 1.
    """
    given = os.environ.get("VQLIB_JOBS")
    if not given:
        return joblib.cpu_count()
    return whole("VQLIB_JOBS", int(given) if given.isdecimal() else given)


@contextmanager
def slot(cache: Path):
    """Wait for a free slot of ``cache`` and hold it in the block; inside another one, do nothing.

    There are as many as cores, or as $VQLIB_JOBS asks for if that is more.
    """
    if _held() is not None:
        yield
        return
    _of_this_thread.held = _take(cache)
    try:
        yield
    finally:
        _give_back()


@contextmanager
def lent():
    """While the block waits for others, the slot that this thread holds is free for them."""
    held = _held()
    _give_back()
    yield
    if held is not None:  # after an error it is not needed any more
        _of_this_thread.held = _take(held[0])


def _held() -> tuple[Path, FileLock] | None:
    return getattr(_of_this_thread, "held", None)


def _give_back() -> None:
    if (held := _held()) is not None:
        _of_this_thread.held = None
        held[1].release()
        _one_in_a_process.release()


def _take(cache: Path) -> tuple[Path, FileLock]:
    _one_in_a_process.acquire()
    try:
        return cache, _free(cache)
    except BaseException:  # Ctrl-C, say, while it waits
        _one_in_a_process.release()
        raise


def _free(cache: Path) -> FileLock:
    """The lock of a free slot, taken; waits for one."""
    # by machine: several may share the folder, and each has cores of its own
    folder = cache / "slots" / (platform.node() or "localhost")
    folder.mkdir(parents=True, exist_ok=True)
    count = max(jobs(), joblib.cpu_count())
    locks = [FileLock(folder / f"{number}.lock") for number in range(count)]
    while True:
        for lock in locks:
            with suppress(Timeout):
                lock.acquire(blocking=False)
                return lock
        time.sleep(PAUSE)
