"""Every notebook, executed at the quick profile: its gates hold."""

import nbformat
import pytest
from bs4 import BeautifulSoup

from tests import ROOT
from vqlib import suite
from vqlib.suite import pages

NOTEBOOKS = ROOT / "notebooks"
# one at a time: the other core has the other tests
QUIET = {"directory": NOTEBOOKS, "jobs": 1, "progress": False}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("quick")
    return suite.run(None, "quick", out, **QUIET)


@pytest.mark.parametrize("stem", sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb")))
def test_the_notebook_runs_and_passes_its_gates(results, stem):
    (result,) = [r for r in results if r.notebook == stem]
    assert result.error is None, result.error
    assert result.gates
    assert all(verdict.passed for verdict in result.gates), result.gates


@pytest.mark.parametrize("stem", sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb")))
def test_every_figure_on_its_page_has_alternative_text_by_its_author(results, stem):
    (result,) = [r for r in results if r.notebook == stem]
    notebook = nbformat.read(result.executed, as_version=4)
    page = BeautifulSoup(pages.body(notebook, str(NOTEBOOKS)), "html.parser")
    given = {cell.metadata.get("alt") for cell in notebook.cells}
    found = [image["alt"] for image in page.select("img")]
    assert found and set(found) <= given
    assert all(drawn.get("aria-label") for drawn in page.select("svg"))
