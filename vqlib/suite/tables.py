"""Records as a person reads them: the before/after pairs, the gates, and both as text.

Every notebook that records ``before/X`` and ``after/X`` adds a row. X makes the row's name and
its unit: utilizations, gaps, shares and accuracies read as percentages, everything else as numbers.
With ``decided/X``, which says whether the interval of the change leaves out 0, the row says so too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from vqlib.suite.results import ControlResult, Result

WORDS = {
    "val": "validation",
    "train": "training",
    "recon": "reconstruction",
    "std": "spread",
    "avg": "average",
    "num": "number of",
    "lr": "learning rate",
    "mse": "MSE",
    "psnr": "PSNR",
    "ema": "EMA",
    "vq": "VQ",
}
PERCENT = ("utilization", "gap", "share", "accuracy")


@dataclass(frozen=True)
class Pair:
    """One row of the before/after table."""

    notebook: str
    name: str
    before: float
    after: float
    decided: bool | None = None  #: whether the seeds decide that there is a change; None: not said

    @property
    def label(self) -> str:
        """The name in words: ``val_utilization`` -> ``Validation utilization``."""
        return human(self.name)

    @property
    def before_text(self) -> str:
        """`before` with its unit."""
        return value_text(self.name, self.before)

    @property
    def after_text(self) -> str:
        """`after` with its unit."""
        return value_text(self.name, self.after)

    @property
    def change(self) -> str:
        """From before to after, and whether that is decided."""
        text = self._difference()
        return f"{text}, undecided" if text and self.decided is False else text

    def _difference(self) -> str:
        """In points for percentages, relative for other numbers."""
        if is_percent(self.name):
            return _signed(100 * (self.after - self.before), " points")
        if not self.before or isinstance(self.before, bool):
            return ""
        if self.after / self.before >= 3:
            return f"× {_digits(self.after / self.before)}"
        return _signed(100 * (self.after - self.before) / abs(self.before), " %")


def pairs(results: Sequence[Result]) -> list[Pair]:
    """All pairs of records ``before/X`` and ``after/X``, in the order they were made."""
    return [
        Pair(
            result.notebook,
            name[7:],
            value,
            result.records["after/" + name[7:]],
            result.records.get("decided/" + name[7:]),
        )
        for result in results
        for name, value in result.records.items()
        if name.startswith("before/") and "after/" + name[7:] in result.records
    ]


def human(name: str) -> str:
    """A record's name in words, with a capital."""
    words = name.replace("/", " ").replace("-", "_").replace("_", " ").split()
    text = " ".join(WORDS.get(word, word) for word in words)
    return text[:1].upper() + text[1:]


def is_percent(name: str) -> bool:
    """Whether the record `name` is a fraction that reads best as a percentage."""
    return name.rpartition("/")[2].split("_")[-1] in PERCENT


def value_text(name: str, value: float | None) -> str:
    """The value of the record `name` with its unit and no more digits than one reads."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if is_percent(name):
        return f"{100 * value:.1f} %".replace("-", "−")
    return _digits(value)


def exact_text(value: float | None) -> str:
    """With enough digits to see a small change, and without a unit."""
    return f"{value:.6g}" if type(value) in (int, float) else value_text("", value)


def gate_text(name: str, gate) -> str:
    """The gate in the record's own unit."""
    if not is_percent(name) or isinstance(gate.equals, bool):
        return str(gate)
    if gate.calibrated:
        band = gate.band
        return f"{100 * band.mean:.1f} % ± {100 * band.half:.1f} %" if band else str(gate)

    def show(value):
        return f"{100 * value:g} %"

    if gate.equals is not None:
        return f"= {show(gate.equals)}" + (f" ± {show(gate.tolerance)}" if gate.tolerance else "")
    if gate.min is None:
        return f"≤ {show(gate.max)}"
    if gate.max is None:
        return f"≥ {show(gate.min)}"
    return f"{show(gate.min)} to {show(gate.max)}"


def verdict_explained(verdict) -> str:
    """`verdict_sentence`, and below it the claim that the gate guards, if one is named."""
    sentence = verdict_sentence(verdict)
    return f"{sentence}\nguards: {verdict.claim}" if verdict.claim else sentence


def verdict_sentence(verdict) -> str:
    """What a gate says of its value, exactly: ``x is 0.52; expected ≥ 0.65``."""
    value = "not known" if verdict.value is None else exact_text(verdict.value)
    return f"{verdict.record} is {value}; expected {verdict.gate}"


def verdict_text(passed: bool | None) -> str:
    """The outcome of a gate in a word."""
    return {True: "pass", False: "FAIL", None: "not run"}[passed]


def before_after_text(results: Sequence[Result]) -> str:
    """The before/after table for a terminal; empty if there is no pair."""
    rows = [(p.label, p.before_text, p.after_text, p.change) for p in pairs(results)]
    return aligned(rows, ("before", "after", "change")) if rows else ""


def gates_text(results: Sequence[Result]) -> str:
    """The table of gates for a terminal."""
    rows = [
        (
            r.notebook,
            v.record,
            value_text(v.record, v.value),
            gate_text(v.record, v.gate),
            verdict_text(v.passed),
        )
        for r in results
        for v in r.gates
    ]
    return aligned(rows, ("value", "gate", "result")) if rows else "no gate in this profile"


def gates_summary(results: Sequence[Result]) -> str:
    """How many gates pass, and which fail."""
    verdicts = [verdict for result in results for verdict in result.gates]
    red = [verdict.record for verdict in verdicts if verdict.passed is False]
    green = sum(verdict.passed is True for verdict in verdicts)
    unknown = [v.record for v in verdicts if v.passed is None and v.value is not None]
    text = f"{green} of {len(verdicts)} gates pass"
    text += f"; red: {', '.join(red)}" if red else ""
    text += f"; not measured, see vqlib calibrate: {', '.join(unknown)}" if unknown else ""
    return _plain(text)


def claims_text(results: Sequence[Result]) -> str:
    """What is in doubt: a line for each gate that fails and says which claim it guards."""
    return "\n".join(
        _plain(f"{result.notebook}: {verdict.record} guards the claim: {verdict.claim}")
        for result in results
        for verdict in result.gates
        if verdict.passed is False and verdict.claim
    )


def controls_text(missed: Sequence[ControlResult]) -> str:
    """What the planted faults did not break, a line each."""
    lines = [
        f"{m.notebook}: the fault {m.control} should turn {m.record} red: {m.reason}"
        for m in missed
    ]
    return "\n".join(map(_plain, lines)) or "each planted fault turned its gates red"


def failures_text(results: Sequence[Result]) -> str:
    """Each notebook that failed, with its traceback; empty if none did."""
    return "\n\n".join(
        f"FAILED {result.notebook}\n" + _indent(result.error) for result in results if result.error
    )


def aligned(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> str:
    """Aligned: what names a row flush left and without a header, the ``columns`` flush right."""
    plain = pd.DataFrame([[_plain(cell) for cell in row] for row in rows])
    table = plain.set_index(list(plain.columns[: -len(columns)]))
    table.columns = list(columns)
    return table.to_string(sparsify=False, index_names=False)


def _plain(text: str) -> str:
    """Without control characters: a name must not move a terminal's cursor."""
    return "".join(c for c in text if unicodedata.category(c)[0] != "C")


def _indent(text: str) -> str:
    return "\n".join(f"  {_plain(line)}".rstrip() for line in text.splitlines())


def _signed(value: float, unit: str) -> str:
    text = f"{abs(value):.1f}" if abs(value) < 10 else f"{abs(value):.0f}"
    sign = "" if float(text) == 0 else "+" if value > 0 else "−"
    return f"{sign}{text}{unit}"


def _digits(value: float) -> str:
    """About three significant digits; whole numbers in full, in groups of three."""
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        text = f"{int(value):,}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) >= 1e-4:
        text = f"{value:#.3g}".rstrip(".")
    else:
        text = f"{value:.2e}"
    return text.replace("-", "−").replace(",", "\u2009")
