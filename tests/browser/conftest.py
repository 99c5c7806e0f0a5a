"""One headless Chromium and one JupyterLab for all tests in a browser."""

from __future__ import annotations

import os

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from tests.browser import servers
from tests.browser.pages import Lab
from vqlib.suite import lineup

# on top of the quick profile: only as long as it takes to run through
SMALL = {
    "07_playground": {"steps": 60},
    "08_diagnose_your_model": {"steps": 50, "healthy_settings": 1},
}
BUILD = servers.ROOT / "build" / "browser"


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium. Skipped where there is none, but not in CI."""
    sync_api = pytest.importorskip("playwright.sync_api", exc_type=ImportError)
    with sync_api.sync_playwright() as playwright:
        path = servers.chromium(playwright)
        if path is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(
                "no Chromium: install your system's, or run `playwright install chromium`"
            )
        opened = playwright.chromium.launch(executable_path=path, args=servers.QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """JupyterLab over a copy of the notebooks, at the quick profile."""
    folder = tmp_path_factory.mktemp("lab")
    root = folder / "notebooks"
    root.mkdir()
    suite = lineup.load(None, "quick", servers.ROOT / "notebooks", SMALL)
    for stem, path in suite.sources.items():
        copy = parameterize_notebook(
            load_notebook_node(str(path)), suite.values[stem], language="python"
        )
        nbformat.write(copy, root / path.name)
    with servers.jupyterlab(root, folder / "home", VQLIB_RUNS=str(folder / "runs")) as server:
        yield server


@pytest.fixture(scope="session")
def lab(browser, server):
    """One page of JupyterLab for all notebooks: to load it takes as long as to run one."""
    return Lab(browser, server)


@pytest.fixture(scope="session")
def pictures():
    """Where screenshots go."""
    BUILD.mkdir(parents=True, exist_ok=True)
    return BUILD


@pytest.fixture(scope="session")
def measured(pictures):
    """Writes a line of what was measured: with -s to the terminal, always to build/browser."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")  # each has a file of its own
    path = pictures / f"measured{worker}.txt"
    path.write_text("", encoding="utf-8")

    def tell(line: str) -> None:
        print(line)
        with path.open("a", encoding="utf-8") as file:
            print(line, file=file)

    return tell
