"""One notebook through papermill: execute it, find every error it hides, scrub its paths.

Papermill fails on an exception in a cell. It does not fail on one inside ``interact`` or a
``with Output():`` block: that is caught, shown in the widget, and sits in the notebook's widget
state. `errors` reads both.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from vqlib.suite import clients, records
from vqlib.suite.costs import MB, Cost, MemoryMeter, output_bytes
from vqlib.suite.kernels import Kernels
from vqlib.training import places

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
ANSI = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]")


class Stopped(Exception):
    """The run was interrupted while this notebook was under way."""


class Enough(Exception):
    """All records that are wanted are there."""


@dataclass(frozen=True)
class Plan:
    """A notebook to execute: `name` is what it is called in the output.

    In the executed notebook the path of the folder `home` reads ``.``; None: the repository's, the
    folder above the notebook's own. `environ` is added to the environment of the kernel. `until`:
    records after which nothing more is executed; none: to the end.
    """

    name: str
    source: Path
    parameters: Mapping[str, object]
    home: Path | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    until: frozenset[str] = frozenset()

    @property
    def cells(self) -> int:
        """How many code cells will run; papermill adds one with the injected parameters."""
        notebook = nbformat.read(self.source, as_version=4)
        code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
        return len(code) + bool(self.parameters)


@dataclass(frozen=True)
class Execution:
    """What became of a Plan; `error` is readable text, None if all went well."""

    notebook: NotebookNode
    cost: Cost
    error: str | None


def execute(
    plan: Plan,
    path: Path,
    kernels: Kernels,
    *,
    timeout: float,
    on_cell: Callable[[], None] = lambda: None,
) -> Execution:
    """Execute `plan` into `path`, which holds what was reached even if a cell fails.

    `timeout` is for the whole notebook, in seconds. Raises Stopped after an interrupt.
    """
    start = time.monotonic()
    meter = MemoryMeter()
    wanted = set(plan.until)

    def before_cell(**_) -> None:
        if kernels.stopping.is_set():
            raise Stopped

    def after_cell(cell: NotebookNode, **_) -> None:
        on_cell()
        if wanted:
            wanted.difference_update(records.named(cell))
            if not wanted:
                raise Enough

    def run() -> None:
        papermill.execute_notebook(
            plan.source,
            path,
            dict(plan.parameters),
            engine_name=clients.ENGINE,
            kernel_name="python3",  # only picks papermill's translator; see vqlib.suite.kernels
            language="python",
            progress_bar=False,
            request_save_on_cell_execute=False,
            path=path,
            meter=meter,
            options={
                "kernel_manager_class": kernels.manager(plan.environ),
                "resources": {"metadata": {"path": str(plan.source.resolve().parent)}},
                "timeout_func": lambda cell: max(1, round(timeout - (time.monotonic() - start))),
                "on_cell_start": before_cell,
                "on_cell_executed": after_cell,
            },
        )

    trouble = None
    try:
        try:
            run()
        except clients.Unanswered:  # rare, and not the notebook's fault: once more from the top
            run()
    except (PapermillExecutionError, Enough):
        pass  # of an error, `errors` says it better
    except CellTimeoutError:
        trouble = f"timed out: not finished after {timeout:g} s"
    except clients.Flooded:
        trouble = f"prints more than {clients.MOST_OUTPUT:,} characters"
    except clients.Unanswered as error:
        trouble = f"the kernel did not answer in two attempts: {error}"
    except DeadKernelError:
        trouble = "the kernel died (killed, or out of memory?)"
    except Exception as error:  # an unforeseen failure of one notebook must not end the others
        trouble = f"could not be executed: {type(error).__name__}: {error}"
    if kernels.stopping.is_set():
        raise Stopped
    return _finish(plan, path, time.monotonic() - start, meter.peak, trouble)


def _finish(
    plan: Plan, path: Path, seconds: float, memory: int | None, trouble: str | None
) -> Execution:
    reached = path if path.exists() else plan.source
    home = plan.home or plan.source.resolve().parent.parent
    notebook = scrub(nbformat.read(reached, as_version=4), home)
    nbformat.write(notebook, path)
    found = ([trouble] if trouble else []) + list(errors(notebook))
    memory_mb = None if memory is None else memory / MB
    cost = Cost(seconds, memory_mb, output_bytes(notebook) / MB)
    return Execution(notebook, cost, "\n\n".join(found) or None)


def errors(notebook: NotebookNode) -> Iterator[str]:
    """Each error in an executed notebook, in a cell or in a widget: what, where, traceback."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                yield _describe(output, f"in cell In [{cell.execution_count}]")
    for output in widget_outputs(notebook):
        if output.get("output_type") == "error":
            yield _describe(output, "hidden in a widget's output")


def widget_outputs(notebook: NotebookNode) -> Iterator[Mapping]:
    """The outputs that Output widgets (those of `interact` too) have captured."""
    widgets = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for widget in widgets.values():
        if widget.get("model_name") == "OutputModel":
            yield from widget.get("state", {}).get("outputs", ())


def _describe(output: Mapping, where: str) -> str:
    what = f"{output.get('ename')}: {output.get('evalue')}".splitlines()[0].rstrip(": ")
    traceback = ANSI.sub("", "\n".join(output.get("traceback") or ())).strip()
    return f"{what} ({where})\n{traceback}".strip()


def scrub(notebook: NotebookNode, home: Path) -> NotebookNode:
    """The notebook without a path of this machine: papermill's, that of `home`, Python's."""
    for key in ("input_path", "output_path", "environment_variables"):
        notebook.metadata.get("papermill", {}).pop(key, None)
    names = {
        home.resolve(): ".",
        places.PARENT: ".",
        Path(sys.prefix): "<python>",
        Path(sys.base_prefix): "<python>",
        Path.home(): "~",
    }
    # the longest first: an environment mostly lies inside the repository
    paths = sorted(
        (path for path in names if path != Path(path.anchor)), key=lambda p: -len(str(p))
    )
    hide = [(re.compile(re.escape(str(path)) + r"(?![\w.-])"), names[path]) for path in paths]
    return nbformat.from_dict(_replace(notebook, hide))


def _replace(value, hide: list[tuple[re.Pattern, str]]):
    if isinstance(value, str):
        for path, name in hide:
            value = path.sub(name, value)
        return value
    if isinstance(value, Mapping):
        return {_replace(key, hide): _replace(item, hide) for key, item in value.items()}
    return [_replace(item, hide) for item in value] if isinstance(value, list) else value
