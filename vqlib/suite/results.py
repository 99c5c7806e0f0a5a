"""The result of a notebook, and the gates that a planted fault left green."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vqlib.suite import records
from vqlib.suite.costs import Cost
from vqlib.suite.gates import Verdict

RESULTS = "results.json"  # in the folder of a report


@dataclass(frozen=True)
class Result:
    """The result of one notebook. `executed` is the notebook with outputs, partial on an error."""

    notebook: str
    profile: str
    parameters: dict[str, object]  #: all that it declares, with the values it had
    records: dict[str, records.Number]
    cost: Cost
    executed: Path
    error: str | None = None
    gates: tuple[Verdict, ...] = ()  #: those on records, then those on the budget

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.cost.seconds


@dataclass(frozen=True)
class ControlResult:
    """A gate that a planted fault did not turn red, and why."""

    notebook: str
    control: str
    record: str
    reason: str
