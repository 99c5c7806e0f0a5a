"""Many runs: each is done once and kept whole, in as many processes as there are cores.

What a run is, is not known here. It makes a folder, and writes its summary.json last: a folder
with a summary is whole. Whoever is killed leaves whole folders and rubbish that nobody trusts,
so the same call again does what is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import joblib
from filelock import FileLock
from joblib.parallel import get_active_backend
from tqdm.auto import tqdm

from vqlib.training import slots

Kept = TypeVar("Kept")
_under_way: set[object] = set()  # runs that this process, a worker, does; one may hold others
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError)


class Task(NamedTuple):
    """A run to do: ``make(folder)`` leaves its results there, summary.json last.

    ``make`` is sent to other processes by pickle, and ``folder`` is absolute.
    """

    folder: Path
    make: Callable[[Path], None]


def once(folder: Path, make: Callable[[Path], None], load: Callable[[Path], Kept]) -> Kept:
    """``load(folder)``; if that fails, after ``make(folder)``.

    Processes that want one folder at once make it once: the others wait. It is made in a slot.
    """
    with suppress(*UNREADABLE):
        return load(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with slots.lent(), FileLock(f"{folder}.lock"):
        try:
            return load(folder)  # somebody has made it meanwhile
        except UNREADABLE:
            shutil.rmtree(folder, ignore_errors=True)  # not there, or not whole
        with slots.slot(folder.parent):
            make(folder)
        return load(folder)


def read_summary(folder: Path) -> dict:
    """The summary of a whole run. Raises OSError or ValueError if there is none."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if not isinstance(summary, dict):
        raise ValueError(f"{folder / 'summary.json'}: expected an object, got {summary!r}")
    return summary


def run(
    tasks: Iterable[Task], *, backend: str | None = None, progress: bool = True
) -> dict[Path, str]:
    """Do the tasks that are not kept yet; gives {folder: what went wrong} of those that failed.

    Args:
        tasks: those with the same folder are one.
        backend: "dask", or another joblib backend, whose workers share the file system and have
            the same vqlib; None: processes on this machine, see `slots.jobs`.
        progress: show a progress bar.

    A task that fails costs nobody else anything. If a worker dies, the runs that may have killed
    it are tried again, each alone; one whose process dies then, too, has failed.
    """
    every = {task.folder: task for task in tasks}
    waiting = {folder: task for folder, task in every.items() if not _is_whole(folder)}
    if not waiting:
        return {}
    failed: dict[Path, str] = {}
    shown: Any = {} if progress else {"disable": True}  # unset, it leaves $TQDM_DISABLE its say
    kept = len(every) - len(waiting)
    bar = tqdm(total=len(every), initial=kept, unit="run", leave=False, **shown)
    engine = _on_dask if backend == "dask" else partial(_by_joblib, backend)
    with bar, slots.lent():
        for folder, problem in _outcomes(waiting, engine):
            if not problem and not _is_whole(folder):
                problem = f"done elsewhere, but not in {folder}: the workers must share its disk"
            if problem:
                failed[folder] = problem
                bar.set_postfix_str(f"{len(failed)} failed", refresh=False)
            bar.update()
    return failed


class _Died(str):
    """The problem of a run whose process died, perhaps of another run's fault."""

    def __new__(cls, error: BaseException):
        return super().__new__(cls, f"its process died ({type(error).__name__})")


def _outcomes(tasks: Mapping[Path, Task], engine: Callable) -> Iterator[tuple[Path, str]]:
    """(folder, problem) of each task, as they end.

    ``engine(tasks)`` gives the same, but may end early after it has named one that died.
    """
    waiting = dict(tasks)
    while waiting:
        suspects = []
        for folder, problem in engine(list(waiting.values())):
            task = waiting.pop(folder)
            if isinstance(problem, _Died):
                suspects.append(task)
            else:
                yield folder, problem
        for task in suspects:
            yield from engine([task], alone=True)


def _by_joblib(
    backend: str | None, tasks: list[Task], *, alone: bool = False
) -> Iterator[tuple[Path, str]]:
    # alone: in a process of its own, as this one must not die with it
    jobs = -1 if backend else 2 if alone else min(slots.jobs(), len(tasks))
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as marks,
        warnings.catch_warnings(),
        joblib.parallel_config(backend or "loky", n_jobs=jobs),
    ):
        # joblib renews a worker that has grown; nothing is lost by it
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        marked = {task.folder: Path(marks, task.folder.name) for task in tasks}
        # one task each time: what a worker does not hold, its death does not cost
        generates = get_active_backend()[0].supports_return_generator  # ray's does not
        kind = "generator_unordered" if generates else "list"
        runner = joblib.Parallel(batch_size=1, return_as=kind)
        try:
            for folder, problem in runner(
                joblib.delayed(_marked)(task, marked[task.folder], os.getpid()) for task in tasks
            ):
                del marked[folder]
                yield folder, problem
        except Exception as error:  # a worker that dies takes all others with it
            begun = [folder for folder, mark in marked.items() if mark.exists()]
            if not begun:
                raise  # nothing could even be begun
            yield from ((folder, _Died(error)) for folder in begun)


def _on_dask(tasks: list[Task], *, alone: bool = False) -> Iterator[tuple[Path, str]]:
    """By dask itself: joblib's way to it waits without end for a run that dask has given up."""
    from distributed import as_completed, get_client

    client = get_client()
    futures = {client.submit(_do, task, pure=False): task.folder for task in tasks}
    for future in as_completed(futures):
        error = future.exception()
        yield (futures[future], _Died(error)) if error else future.result()


def _marked(task: Task, mark: Path, caller: int) -> tuple[Path, str]:
    """`_do`, and a file that is there while it is under way. ``caller``: its process id."""
    if os.getppid() == caller:
        _watch(caller)
    if mark.parent.is_dir():  # else the caller is gone
        mark.touch()
    run = object()
    _under_way.add(run)
    try:
        outcome = _do(task)
    finally:
        _under_way.discard(run)
    mark.unlink(missing_ok=True)
    return outcome


@cache
def _watch(caller: int) -> None:
    """End this worker soon after its caller was killed, but not in the midst of a run."""

    def look() -> None:
        while os.getppid() == caller or _under_way:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=look, daemon=True).start()


def _do(task: Task) -> tuple[Path, str]:
    """In a worker: (folder, problem), which is "" if all went well."""
    try:
        once(task.folder, task.make, read_summary)
    except (Exception, SystemExit) as error:
        return task.folder, f"{type(error).__name__}: {error}"
    return task.folder, ""


def _is_whole(folder: Path) -> bool:
    try:
        read_summary(folder)
    except UNREADABLE:
        return False
    return True
