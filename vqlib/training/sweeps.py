"""Many runs: each is done once and kept whole, in as many processes as there are cores.

What a run is, is not known here. It makes a folder, and writes its summary.json last: a folder
with a summary is whole. Whoever is killed leaves whole folders and rubbish that nobody trusts,
so the same call again does what is missing.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import joblib
from filelock import FileLock
from tqdm.auto import tqdm

from vqlib.training import slots

Kept = TypeVar("Kept")
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
        backend: a joblib backend, such as "dask", whose workers share the file system and have
            the same vqlib; None: processes on this machine, see `slots.jobs`.
        progress: show a progress bar.

    A task that fails costs nobody else anything. If a worker dies, the runs that were under way
    are tried again, each alone; who is alone and dies again has failed.
    """
    every = {task.folder: task for task in tasks}
    waiting = {folder: task for folder, task in every.items() if not _is_whole(folder)}
    if not waiting:
        return {}
    failed: dict[Path, str] = {}
    shown = {} if progress else {"disable": True}  # unset, it leaves $TQDM_DISABLE its say
    kept = len(every) - len(waiting)
    bar = tqdm(total=len(every), initial=kept, unit="run", leave=False, **shown)
    cache = next(iter(waiting)).parent
    cache.mkdir(parents=True, exist_ok=True)
    place = tempfile.TemporaryDirectory(prefix=".begun-", dir=cache, ignore_cleanup_errors=True)
    with bar, slots.lent(), place as marks:
        suspects: list[Task] = []
        while waiting:
            # a suspect in a process of its own: this one must not die with it
            jobs = 2 if suspects else min(slots.jobs(), len(waiting))
            batch = [suspects.pop()] if suspects else list(waiting.values())
            try:
                for folder, problem in _outcomes(batch, Path(marks), backend, jobs):
                    del waiting[folder]
                    if problem:
                        failed[folder] = problem
                        bar.set_postfix_str(f"{len(failed)} failed", refresh=False)
                    bar.update()
            except Exception as error:
                begun = [t for t in batch if t.folder in waiting and _mark(marks, t).exists()]
                if not begun:
                    raise  # no worker died: nothing could even be begun
                if len(batch) == 1:
                    del waiting[batch[0].folder]
                    failed[batch[0].folder] = f"its process died ({type(error).__name__})"
                    bar.update()
                else:
                    suspects = begun
                for task in begun:
                    _mark(marks, task).unlink()
    return failed


def _outcomes(
    batch: list[Task], marks: Path, backend: str | None, jobs: int
) -> Iterator[tuple[Path, str]]:
    """(folder, problem) of each task, as they end; problem is "" if all went well."""
    with (
        warnings.catch_warnings(),
        joblib.parallel_config(backend or "loky", n_jobs=-1 if backend else jobs),
    ):
        # joblib renews a worker that has grown; nothing is lost by it
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        # one task each time: what a worker does not hold, its death does not cost
        runner = joblib.Parallel(batch_size=1, return_as="generator_unordered")
        for folder, problem in runner(joblib.delayed(_do)(task, marks) for task in batch):
            if not problem and not _is_whole(folder):
                problem = f"done elsewhere, but not in {folder}: the workers must share its disk"
            yield folder, problem


def _do(task: Task, marks: Path) -> tuple[Path, str]:
    """In a worker."""
    mark = _mark(marks, task)
    if marks.is_dir():  # else the caller is gone, or has another disk
        mark.touch()
    try:
        once(task.folder, task.make, read_summary)
        problem = ""
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}"
    mark.unlink(missing_ok=True)
    return task.folder, problem


def _mark(marks: Path | str, task: Task) -> Path:
    """A file that is there while the task is under way."""
    return Path(marks, task.folder.name)


def _is_whole(folder: Path) -> bool:
    try:
        read_summary(folder)
    except UNREADABLE:
        return False
    return True
