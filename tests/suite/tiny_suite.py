"""A folder of notebooks for the tests of the suite: tiny, without torch, made on the spot."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vqlib.suite.costs import Cost
from vqlib.suite.executing import Execution
from vqlib.suite.records import MIME

RECORD = "from vqlib import record"


def parameters(source: str = "", tags: tuple[str, ...] = ("parameters",)):
    """The cell that declares the parameters."""
    return new_code_cell(source, metadata={"tags": list(tags)})


def write_notebook(directory: Path, name: str, *cells, title: str | None = None) -> Path:
    """A notebook with a heading; a cell given as text is a code cell."""
    heading = new_markdown_cell(f"# {title or name}")
    cells = [cell if isinstance(cell, dict) else new_code_cell(cell) for cell in cells]
    path = directory / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[heading, *cells]), path)
    return path


def write_settings(directory: Path, expected: str = "", **profiles: str) -> Path:
    """expected.toml and the profiles; `quick` exists always."""
    (directory / "profiles").mkdir(parents=True, exist_ok=True)
    for name, text in ({"quick": ""} | profiles).items():
        (directory / "profiles" / f"{name}.toml").write_text(text, encoding="utf-8")
    (directory / "expected.toml").write_text(expected, encoding="utf-8")
    return directory


def execute_here(plan, path, kernels, *, timeout, on_cell=lambda: None):
    """Stands in for `vqlib.executing.execute` where a test needs no kernel: plain exec."""
    notebook = nbformat.read(plan.source, as_version=4)
    scope, error = {}, None
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):

        def record(name, value, cell=cell):
            cell.outputs.append(new_output("display_data", {MIME: {"name": name, "value": value}}))

        try:
            exec(cell.source, scope | {"record": record}, scope)
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
            break
        if "parameters" in cell.metadata.get("tags", ()):
            scope.update(plan.parameters)
        on_cell()
    nbformat.write(notebook, path)
    return Execution(notebook, Cost(0.1, 50.0, 0.001), error)
