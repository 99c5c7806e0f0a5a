"""The playground as a page without code, on this machine only: ``python -m vqlib.playground.page``.

Voila runs a notebook of a few cells in a kernel and shows what they display. The kernel is always
this interpreter, even if another ``python3`` is registered, and a token keeps other people on a
shared machine out of it. The browser gets it from a private file: a command line is everybody's.
"""

from __future__ import annotations

import atexit
import html
import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.paths import jupyter_runtime_dir
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from traitlets import default
from traitlets.config import Config
from voila.app import Voila

from vqlib.training import places

TITLE = "A codebook you can watch die"
TEMPLATE = Path(__file__).with_name("templates") / "page"
LEADS_TO = """\
<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url={0}"><a href="{0}">The playground</a>
"""
WORLD = """\
Dots are encoder outputs, drawn anew in each step. Their cloud drifts, as an encoder's outputs do
while it learns. The codes follow by moving average, and those left behind die: a cross marks a code
that has not been chosen for 20 steps. Press **Play**, move a slider, or choose a preset."""
TRAINING = """\
## Train for real

A small VQ-VAE on photographs. Choose settings, press **Train** and watch. **Stop** ends the run
and keeps it. Runs stay on disk after this page is closed."""


def notebook() -> NotebookNode:
    """What the page shows: the playground, and trainings below it."""
    return new_notebook(
        cells=[
            new_markdown_cell(f"# {TITLE}\n\n{WORLD}"),
            new_code_cell("from vqlib.playground import Playground, Trainings\n\nPlayground()"),
            new_markdown_cell(TRAINING),
            new_code_cell("Trainings()"),
        ],
        metadata={
            "title": TITLE,
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        },
    )


class ThisPython(KernelSpecManager):
    """Knows one kernel, that of this interpreter."""

    @default("kernel_dirs")
    def _kernel_dirs_default(self) -> list[str]:
        return []


class Page(Voila):
    """Voila, which opens the browser with its token and asks no other host for anything."""

    def setup_template_dirs(self) -> None:
        """Ours before voila's."""
        super().setup_template_dirs()
        self.template_paths.insert(0, str(TEMPLATE))

    def launch_browser(self) -> None:
        """Open the page in the person's browser, by a file that only this person can read."""
        folder = Path(jupyter_runtime_dir())
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, file = tempfile.mkstemp(prefix="vqlib-page-", suffix=".html", dir=folder)
        atexit.register(Path(file).unlink, missing_ok=True)
        with open(handle, "w", encoding="utf-8") as leads:
            leads.write(LEADS_TO.format(html.escape(self.display_url)))
        webbrowser.open(Path(file).as_uri())


def settings() -> Config:
    """Loopback, a token, no code, and errors shown where they happen."""
    config = Config()
    config.Voila.ip = "127.0.0.1"
    config.Voila.auto_token = True
    config.VoilaConfiguration.strip_sources = True
    config.VoilaConfiguration.show_tracebacks = True
    config.VoilaConfiguration.kernel_spec_manager_class = ThisPython
    config.MappingKernelManager.transport_encryption = "auto"  # ports are open to all users
    return config


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page until interrupted; takes voila's flags (``--port=8866``, ``--no-browser``)."""
    os.environ |= places.python_path()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "playground.ipynb"
        nbformat.write(notebook(), path)
        flags = sys.argv[1:] if argv is None else argv
        Page.launch_instance([str(path), *flags], config=settings())


if __name__ == "__main__":
    main()
