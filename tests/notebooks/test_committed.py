"""The notebooks as committed: stripped, stable, and built like lessons."""

import re
from statistics import median

import nbformat
import pytest

from tests import NOTEBOOKS

SKELETON = (
    "**The question.**",
    "**You will learn**",
    "**Cost.**",
    "**Predict first.**",
    "## Exercise",
    "## What we measured",
    "## Takeaways",
)
# a call of a figure's function; `tree` is text with links, `sample` and `set_style` draw nothing
DRAWS = re.compile(r"\bfigures\.(?!tree)\w+\.(?!sample\(|set_style\()\w+\(|\.figure\(\)")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_no_outputs_no_counts_no_widgets(notebook):
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))
    assert "widgets" not in notebook.metadata and "papermill" not in notebook.metadata


def test_cell_ids_are_unique_and_stable(notebook):
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"\d\d-\d\d[a-z]?", i) for i in ids)


def test_the_skeleton_stands_in_order(notebook):
    found = [text(notebook).find(part) for part in SKELETON]
    assert -1 not in found, SKELETON[found.index(-1)]
    assert found == sorted(found)
    assert re.match(r"# \d · ", notebook.cells[0].source)
    assert ".ipynb)" in notebook.cells[-1].source  # where to go next


def test_the_parameters_come_first(notebook):
    assert code(notebook)[0].metadata.get("tags") == ["parameters"]


def test_the_imports_say_in_one_line_what_the_helpers_are_for(notebook):
    lines = code(notebook)[1].source.splitlines()
    assert "import" in lines[0]
    assert sum(line.startswith("# Helpers: ") for line in lines) == 1


def test_a_code_cell_has_one_idea(notebook):
    lengths = [len(cell.source.splitlines()) for cell in code(notebook)]
    assert median(lengths) <= 8
    assert max(lengths) <= 25


def test_every_figure_has_alternative_text_by_its_author(notebook):
    for cell in code(notebook):
        assert bool(DRAWS.search(cell.source)) == ("alt" in cell.metadata), cell.id
    alts = [cell.metadata.alt for cell in code(notebook) if "alt" in cell.metadata]
    assert alts and len(set(alts)) == len(alts)
    for alt in alts:  # what is drawn, not "Figure 3"
        assert len(alt.split()) >= 6 and not re.match(r"(?i)(figure|image|plot) ", alt), alt


def test_the_teaching_plan_knows_every_notebook_and_its_links_hold():
    plan = (NOTEBOOKS[0].parent / "README.md").read_text()
    rows = [line for line in plan.splitlines() if line.startswith("| [")]
    assert re.findall(r"\((\S+\.ipynb)\)", "\n".join(rows)) == [path.name for path in NOTEBOOKS]
    for path in NOTEBOOKS:
        title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0]
        assert f"[{title.removeprefix('# ')}]({path.name})" in plan
        assert f"**{title[2]}.** *Ask:*" in plan
