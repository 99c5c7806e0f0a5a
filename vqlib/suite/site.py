"""The site: the executed notebooks and a front page, as static files for any web server.

::

    python -m vqlib.suite.site build build/site

It is made from what `vqlib run` left in its folder, and executes nothing. Like the report, no
page fetches anything.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from markupsafe import Markup
from nbformat import NotebookNode

from vqlib.suite import pages, report, tables
from vqlib.suite.errors import SuiteError
from vqlib.suite.records import Number
from vqlib.suite.results import RESULTS
from vqlib.training.files import read_json

GENERATOR = "vqlib site"
MARK = f'<meta name="generator" content="{GENERATOR}">'


class Ran(NamedTuple):
    """A notebook that ran, and what it recorded."""

    notebook: str
    records: dict[str, Number]


def write(build: Path, folder: Path) -> Path:
    """Write the site of the last run in `build` into `folder`; returns its front page.

    The report's own front page stands beside it as ``report.html``.

    Raises SuiteError if there is no complete run in `build`, if one of its notebooks failed, or
    if `folder` holds something that is no site.
    """
    said = _results(build)
    results = [Ran(one["notebook"], one["records"]) for one in said["notebooks"]]
    failed = [one["notebook"] for one in said["notebooks"] if one["error"]]
    coming = said.get("coming", ())
    if failed or coming:
        missing = ", ".join([*failed, *coming])
        raise SuiteError(
            f"{build}: a site shows a whole run, and these did not end well: {missing}"
        )
    notebooks = {r.notebook: _notebook(build, r.notebook) for r in results}
    _claim(folder)
    titles = {name: pages.title(notebook, name) for name, notebook in notebooks.items()}
    questions = {name: question(notebook) for name, notebook in notebooks.items()}
    environment = report.environment()
    common = {"titles": titles, "questions": questions, "about": said["provenance"], "mark": MARK}
    for place, (name, notebook) in enumerate(notebooks.items()):
        names = list(notebooks)
        text = environment.get_template("site_lesson.html.j2").render(
            common,
            name=name,
            number=place + 1,
            before=names[place - 1] if place else None,
            after=names[place + 1] if place + 1 < len(names) else None,
            body=Markup(pages.body(notebook, str(build / "notebooks"), notebooks)),
        )
        _save(folder / "notebooks" / f"{name}.html", text)
    gates = [gate for one in said["notebooks"] for gate in one["gates"]]
    front = environment.get_template("site_index.html.j2").render(
        common,
        pairs=tables.pairs(results),
        figure=report.figure(notebooks),
        gates=len(gates),
        green=sum(gate["passed"] is True for gate in gates),
    )
    for name, copy in {"report.html": "index.html", RESULTS: RESULTS}.items():
        _save(folder / name, (build / "report" / copy).read_text(encoding="utf-8"))
    _save(folder / "index.html", front)
    return folder / "index.html"


def question(notebook: NotebookNode) -> str:
    """What a lesson asks, as plain text; empty if it does not say."""
    for cell in notebook.cells:
        asked = re.search(r"^\*\*The question\.\*\* +(.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and asked:
            return pages.plain(asked.group(1))
    return ""


def _results(build: Path) -> dict[str, Any]:
    path = build / "report" / RESULTS
    try:
        return read_json(path)
    except FileNotFoundError:
        raise SuiteError(f"{path}: not found; `vqlib run --out {build}` makes it") from None
    except (OSError, ValueError) as error:
        raise SuiteError(str(error)) from None


def _notebook(build: Path, name: str) -> NotebookNode:
    path = build / "notebooks" / f"{name}.ipynb"
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        raise SuiteError(f"{path}: {error}") from None


def _claim(folder: Path) -> None:
    """Make the folder. What is in it stays, unless it is a page of an earlier site."""
    front = folder / "index.html"
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not front.is_file()):
        raise SuiteError(f"{folder}: expected a new or empty folder, or one with a site in it")
    if front.is_file() and MARK not in front.read_text(encoding="utf-8", errors="replace"):
        raise SuiteError(f"{front}: this is no page of a site, and would be overwritten")
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)


def _save(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """``BUILD SITE``: prints the front page's path. Exit status 2 if there is nothing to show."""
    if len(arguments) != 2:
        print("error: expected two folders: of a run, and for the site", file=sys.stderr)
        return 2
    try:
        print(write(*map(Path, arguments)))
    except SuiteError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
