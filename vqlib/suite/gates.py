"""What each notebook must record, which values pass, and which planted faults must not.

They stand in ``notebooks/expected.toml``, which `vqlib.suite.gatefile` reads.

There are three kinds of gate, and no tolerance that all share:

- an *invariant*, ``equals`` with a ``tolerance`` (absolute, inclusive; not needed for true and
  false): what follows from the definitions, whatever the seed. With a tolerance above 1 % it is a
  band, set by hand;
- an *effect*, ``min`` and/or ``max`` (both inclusive): what a claim says must hold on every seed;
- a *band*, ``"band"``: the number must come from the population that was measured, see `Band`. An
  entry that is ``"band"`` as a whole is a gate in each profile that was measured. A band that
  was not measured yet judges nothing, and the report does not pass.

A record that is made but not listed, or listed but not made, is an error. A gate that no control
can turn red guards nothing: `gates_without_control`. What a budget limits is judged like a record
named ``budget/seconds`` and so on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vqlib.quantization.names import near

RISK = 1e-3  # of a band's false alarm, at each execution
ROUNDING = 0.01  # of an invariant's value
BAND = "band"
INVARIANT, EFFECT, BUDGETED = "invariant", "effect", "budget"
BUDGET = "budget/"


@dataclass(frozen=True)
class Band:
    """Where the next execution's number lies, with a risk of `RISK` to be wrong.

    `mean` and `sd` (n - 1 in its denominator) are of `n` executions: `repeats` of them on seeds of
    their own, on each of some kinds of machine. So `sd` holds the spread over both. An execution
    has as many seeds as its profile says, so nothing is scaled: another profile has another band.
    """

    mean: float
    sd: float
    n: int
    repeats: int

    @property
    def half(self) -> float:
        """Half of the width: of Student's prediction interval for one more value.

        t(1 - RISK/2, r - 1) sd sqrt(1 + 1/r) for r repeats, in a normal population: 5.0 sd for
        10, 4.0 for 20. The other kinds of machine repeat the same seeds, so they do not count.
        """
        from scipy.special import stdtrit  # here: it takes time to import

        t = float(stdtrit(self.repeats - 1, 1 - RISK / 2))
        return t * self.sd * math.sqrt(1 + 1 / self.repeats)

    def holds(self, value: float) -> bool:
        """Whether `value` lies within, up to the digits that the file keeps."""
        distance = abs(value - self.mean)
        return distance <= self.half or math.isclose(value, self.mean, rel_tol=1e-5, abs_tol=1e-9)


@dataclass(frozen=True)
class Gate:
    """The values that pass: from `min` to `max`, within `tolerance` of `equals`, or in `band`.

    Without any of them: a band that was not measured yet.
    """

    min: float | None = None
    max: float | None = None
    equals: float | None = None
    tolerance: float = 0.0
    band: Band | None = None

    @property
    def kind(self) -> str:
        """`INVARIANT`, `EFFECT` or `BAND`; a tolerance that is more than rounding makes a band."""
        if self.equals is not None:
            return INVARIANT if self.tolerance <= ROUNDING * abs(self.equals) else BAND
        return BAND if self.calibrated else EFFECT

    @property
    def calibrated(self) -> bool:
        """Whether it is for `vqlib calibrate` to say which values pass."""
        return self.equals is None and self.min is None and self.max is None

    def passes(self, value: float) -> bool | None:
        """Whether `value` lies within, the bounds included; None if that was not measured yet."""
        if self.calibrated:
            return self.band and self.band.holds(value)
        if self.equals is not None:
            distance = abs(value - self.equals)
            # 1.1 lies within 0.1 of 1.0, though binary fractions disagree
            return distance <= self.tolerance or math.isclose(distance, self.tolerance)
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def __str__(self) -> str:
        if self.calibrated:
            return f"{self.band.mean:.3g} ± {self.band.half:.2g}" if self.band else "not measured"
        if isinstance(self.equals, bool):
            return "= yes" if self.equals else "= no"
        if self.equals is not None:
            return f"= {self.equals:g}" + (f" ± {self.tolerance:g}" if self.tolerance else "")
        if self.min is None:
            return f"≤ {self.max:g}"
        return f"≥ {self.min:g}" if self.max is None else f"{self.min:g} to {self.max:g}"


@dataclass(frozen=True)
class Verdict:
    """One gate and one value; `passed` is None if there was no value to judge."""

    record: str
    value: float | None
    gate: Gate
    passed: bool | None
    claim: str = ""  #: what the gate guards, in words; empty if expected.toml does not say

    @property
    def kind(self) -> str:
        """The gate's, or `BUDGETED`."""
        return BUDGETED if self.record.startswith(BUDGET) else self.gate.kind


@dataclass(frozen=True)
class Measurement:
    """What `vqlib calibrate` found of one notebook in one profile, and on what."""

    seeds: range
    kinds: tuple[str, ...]
    numbers: dict[str, Band]


@dataclass(frozen=True)
class Control:
    """A planted fault: with `parameters`, the gates of `must_fail` have to go red."""

    notebook: str
    name: str
    parameters: dict[str, object]
    must_fail: tuple[str, ...]


@dataclass(frozen=True)
class Expected:
    """`records`: notebook -> record -> profile -> Gate (no profile: not gated there)."""

    records: dict[str, dict[str, dict[str, Gate]]] = field(default_factory=dict)
    controls: tuple[Control, ...] = ()
    optional: frozenset[tuple[str, str]] = frozenset()  #: (notebook, record) that may be missing
    claims: dict[tuple[str, str], str] = field(default_factory=dict)  #: (notebook, record) -> claim
    #: like `records`, for what the execution costs
    budgets: dict[str, dict[str, dict[str, Gate]]] = field(default_factory=dict)
    #: (profile, notebook) -> what the bands come from
    measured: dict[tuple[str, str], Measurement] = field(default_factory=dict)
    name: str | None = "expected.toml"  #: the file; None: there is none yet, any record is welcome

    def judge(
        self,
        notebook: str,
        profile: str,
        values: Mapping[str, float],
        costs: Mapping[str, float | None] | None = None,
    ) -> list[Verdict]:
        """Every gate of the notebook in that profile, against what it recorded and what it cost."""
        measured = {**values, **{BUDGET + name: cost for name, cost in (costs or {}).items()}}
        gated = {**self.records.get(notebook, {}), **self.budgets.get(notebook, {})}
        verdicts = []
        for name, gates in gated.items():
            if profile in gates:
                value = measured.get(name)
                passed = None if value is None else gates[profile].passes(value)
                claim = self.claims.get((notebook, name), "")
                verdicts.append(Verdict(name, value, gates[profile], passed, claim))
        return verdicts

    def mismatches(self, notebook: str, recorded: Iterable[str]) -> list[str]:
        """A sentence for each record that is missing or not listed."""
        if self.name is None:
            return []
        expected, recorded = self.records.get(notebook, {}), set(recorded)
        missing = [
            f"record `{name}` is expected, but was not made"
            + (near(name, recorded - set(expected)) if recorded - set(expected) else "")
            for name in expected
            if name not in recorded and (notebook, name) not in self.optional
        ]
        unexpected = [
            f"record `{name}` was made, but {self.name} does not list it"
            for name in sorted(recorded - set(expected))
        ]
        return missing + unexpected


def gates_without_control(expected: Expected) -> list[tuple[str, str]]:
    """The gated records (notebook, record) that no control turns red."""
    covered = {(c.notebook, name) for c in expected.controls for name in c.must_fail}
    return [
        (notebook, name)
        for notebook, records in expected.records.items()
        for name, gates in records.items()
        if gates and (notebook, name) not in covered
    ]
