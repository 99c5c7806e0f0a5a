"""Editions of the notebooks for a class: the student's without solutions, the instructor's with.

The committed notebooks are for those who learn alone: a stub that runs but is wrong, a hint and a
solution, both folded. A student's notebook lacks only the solutions. In an instructor's notebook
each solution replaces its stub, and its explanation is unfolded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

import nbformat
from nbformat import NotebookNode

from vqlib.suite.errors import SuiteError
from vqlib.training.files import clear, write_text

Edition = Literal["student", "instructor"]
MARK = "vqlib_edition"  # in a notebook's metadata: which edition, and what we wrote
CODE = re.compile(r"```python\n(.*?)```\n*", re.DOTALL)
FOLD = re.compile(r"</?details>|<summary>.*?</summary>")


def edition(notebook: NotebookNode, kind: Edition) -> NotebookNode:
    """A copy for students or for instructors.

    Raises SuiteError for another kind, and for a solution without an exercise above it.
    """
    if kind not in get_args(Edition):
        raise SuiteError(f"the editions are {' and '.join(get_args(Edition))}, got {kind!r}")
    copy = nbformat.from_dict(notebook)
    if kind == "instructor":
        _solve(copy.cells)
    else:
        copy.cells = [cell for cell in copy.cells if not _is(cell, "solution")]
    copy.metadata[MARK] = {"edition": kind, "written": _digest(copy)}
    return copy


def write(notebooks: Iterable[Path], kind: Edition, folder: Path) -> list[Path]:
    """Write an edition of ``notebooks`` into ``folder``, under their names.

    Raises SuiteError, before anything is written, if that would overwrite a file that was not
    made here, is of another edition, or was edited by somebody since.
    """
    made = {}
    for path in notebooks:
        made[folder / path.name] = edition(nbformat.read(path, as_version=4), kind)
    problems = [problem for path in made if (problem := _in_the_way(path, kind))]
    if folder.exists() and not folder.is_dir():
        problems = [f"{folder} is a file; expected a folder, or a name that is not taken"]
    if problems:
        raise SuiteError(problems)
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    for path, notebook in made.items():
        write_text(path, nbformat.writes(notebook) + "\n")  # whole, or not at all
    return list(made)


def _solve(cells: list[NotebookNode]) -> None:
    """Each stub becomes its solution's code; the solution's cell keeps the explanation."""
    stub = None
    for cell in cells:
        if _is(cell, "exercise"):
            stub = cell
        elif _is(cell, "solution"):
            if stub is None:
                raise SuiteError(f"cell {cell.id}: a solution without an exercise above it")
            stub.source = "\n".join(CODE.findall(cell.source)).strip()
            cell.source = "**Solution.** " + FOLD.sub("", CODE.sub("", cell.source)).strip()
            stub = None


def _in_the_way(path: Path, kind: Edition) -> str | None:
    """Why ``path`` must not be written, or None."""
    if not path.exists():
        return None
    expected = f"expected a new folder, or unedited notebooks of `vqlib lessons --{kind}`"
    try:
        there = nbformat.read(path, as_version=4)
    except Exception:  # nbformat lets many kinds through; all mean that it is not ours
        return f"{path} exists and is not a notebook; {expected}"
    mark = there.metadata.get(MARK)
    if not mark:
        return f"{path} exists and was not made by `vqlib lessons`; {expected}"
    if mark.get("edition") != kind:
        return f"{path} is of the {mark.get('edition')}'s edition; {expected}"
    if mark.get("written") != _digest(there):
        return f"{path} was edited after it was made; {expected}"
    return None


def _is(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", ())


def _digest(notebook: NotebookNode) -> str:
    """Of what stands in the cells; outputs may change, they can be made again."""
    text = "\0".join(f"{cell.cell_type}\0{cell.source}" for cell in notebook.cells)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
