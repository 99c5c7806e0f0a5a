"""Notebooks as tests in anybody's pytest: one test for the execution, one for each gate.

Ask for it with ``pytest -p vqlib.suite.pytest_plugin notebooks/``, or with that ``-p`` in the
``addopts`` of your configuration. It is no entry point, which pytest would load wherever vqlib is
installed: other plugins collect notebooks too, and a file must have one master.

Collected is every notebook with an ``expected.toml`` beside it (or under ``--vqlib-expected``), and
every one that is named on the command line. It is executed once, when its first test runs; with
pytest-xdist take ``--dist loadfile``, or each worker executes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vqlib.suite.gates import Verdict
    from vqlib.suite.results import Result

EXECUTES = "executes"


class NotebookFailed(Exception):
    """The notebook could not be executed, or its records are not those that are expected."""


class GateFailed(Exception):
    """A number lies outside its gate."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The files and the time limit, as `vqlib check` has them."""
    group = parser.getgroup("vqlib", "notebooks that record numbers")
    group.addoption(
        "--vqlib-expected",
        metavar="FILE",
        type=Path,
        help="the file of gates; default: expected.toml beside each notebook",
    )
    group.addoption(
        "--vqlib-profile",
        metavar="FILE",
        type=Path,
        help="a TOML file with the values of the notebooks' parameters",
    )
    group.addoption(
        "--vqlib-timeout",
        metavar="SECONDS",
        type=float,
        default=1800.0,
        help="time limit for each notebook; default: %(default)s",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> NotebookFile | None:
    """A notebook that somebody expects something of."""
    if file_path.suffix != ".ipynb":
        return None
    asked = parent.session.isinitpath(file_path)
    if asked or _expected(parent.config, file_path).is_file():
        return NotebookFile.from_parent(parent, path=file_path)
    return None


def _expected(config: pytest.Config, notebook: Path) -> Path:
    return config.getoption("vqlib_expected") or notebook.parent / "expected.toml"


class NotebookFile(pytest.File):
    """A notebook; its tests share one execution."""

    def collect(self) -> Iterator[pytest.Item]:
        """The execution, then the gates. A malformed file is an error of the collection."""
        yield Execution.from_parent(self, name=EXECUTES)
        for verdict in self._lineup.expected.judge(self.path.stem, self._lineup.profile, {}):
            yield Gate.from_parent(self, name=verdict.record)

    @cached_property
    def _lineup(self):
        from vqlib.suite import foreign
        from vqlib.suite.errors import SuiteError

        expected, profile = (
            _expected(self.config, self.path),
            self.config.getoption("vqlib_profile"),
        )
        try:
            return foreign.load([self.path], expected, profile)
        except SuiteError as error:
            raise self.CollectError(str(error)) from None

    @cached_property
    def result(self) -> Result:
        """What became of the notebook; executes it at the first call."""
        from vqlib.suite.run import execute

        (result,) = execute(self._lineup, timeout=self.config.getoption("vqlib_timeout"))
        return result


class _Item(pytest.Item):
    parent: NotebookFile

    def reportinfo(self):
        """Where it stands in pytest's report."""
        return self.path, None, f"{self.path.stem}: {self.name}"

    def repr_failure(self, excinfo, style=None):
        """The message alone: a traceback through this file would help nobody."""
        if isinstance(excinfo.value, NotebookFailed | GateFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)


class Execution(_Item):
    """The notebook executes, and records what is expected."""

    def runtest(self) -> None:
        """Raises NotebookFailed."""
        if self.parent.result.error:
            raise NotebookFailed(self.parent.result.error)


class Gate(_Item):
    """One number lies within its gate."""

    def runtest(self) -> None:
        """Raises GateFailed, also for a band that was not measured.

        Skips if there is no value, which `Execution` reports.
        """
        from vqlib.suite import tables

        verdict = self._verdict()
        if verdict.value is None:
            pytest.skip("the notebook did not get so far as to record it")
        if not verdict.passed:
            raise GateFailed(tables.verdict_explained(verdict))

    def _verdict(self) -> Verdict:
        return next(v for v in self.parent.result.gates if v.record == self.name)
