"""Findings: what an examination answers, with its numbers; and how they print."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Literal, NamedTuple, get_args

import jinja2

from vqlib.diagnosis import palette
from vqlib.quantization.names import printable

Severity = Literal["critical", "warning", "note", "clear", "unknown", "not applicable"]
RANK = {name: place for place, name in enumerate(get_args(Severity))}
FIRED = ("critical", "warning", "note")
GRAVE = ("critical", "warning")

IDS = {
    "codebook-collapse": "few codes are in use, far fewer than this window could show",
    "encoder-collapse": "the encoder gives nearly the same output for every input",
    "dimensional-collapse": "the vectors vary in far fewer dimensions than they have",
    "commitment-outweighs-reconstruction": "the encoder learns to please the codes rather than the "
    "decoder",
    "encoder-drift": "the encoder's outputs drift away from codes that are no longer updated",
    "threshold-above-share": "the reset threshold is higher than the counts of many codes can be",
    "reset-churn": "resets replace much of the codebook, or do not become fewer",
    "reset-never-fires": "codes are dead, but no reset happens",
    "resets-ended-too-early": "the codebook fell out of use when the resets stopped",
    "reset-does-not-survive": "codes do not come into use after a reset",
    "evaluation-changes-counts": "an evaluation pass changes the quantizer's state",
    "cold-start": "counts or sums start too low, so much of the first codebook is thrown away",
    "first-step-explosion": "codes without a hit explode in the first steps",
    "duplicate-codes": "several codes hold the same vector, so only one of them can be chosen",
    "ranks-disagree": "processes that should share one codebook hold different ones",
    "not-reproducible": "one seed gives different results",
    "loss-hides-collapse": "the loss is small because of its scale, not because the codes fit",
    "train-validation-gap": "validation uses far fewer codes than training",
    "top-code-dominates": "one code takes a large share of the tokens",
    "window-too-small": "the window has too few tokens to show how much of the codebook is used",
    "unstable-training": "the loss jumps or stops being finite",
    "healthy": "nothing wrong was found",
}
"""Every finding's id and what it says. The ids are stable: scripts rely on them."""


@dataclass(frozen=True)
class Evidence:
    """One number behind a finding."""

    name: str
    value: float | int | str
    unit: str = ""
    window: str = ""  #: over what it was measured, e.g. "last 20 train rows (steps 180 to 199)"

    @property
    def number(self) -> str:
        return f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.name}: {self.number}{unit}" + (f" ({self.window})" if self.window else "")


@dataclass(frozen=True)
class Finding:
    """An answer to one question about a codebook.

    Attributes:
        id: one of `IDS`.
        severity: "critical", "warning" or "note" if the fault was found; "clear" if it was looked
            for and not found; "unknown" if the data cannot decide; "not applicable".
        evidence: the numbers that decided.
        cause: a sentence or two. If unknown or not applicable: why. If clear: what the answer
            leaves out, if anything.
        remedy: what to do, in values for this model. If unknown: what would decide it.
        subject: the layer it is about, if there are several.
    """

    id: str
    severity: Severity
    evidence: tuple[Evidence, ...] = ()
    cause: str = ""
    remedy: str = ""
    subject: str = ""

    def __post_init__(self):
        if self.id not in IDS:
            raise ValueError(f"unknown finding id {self.id!r}; the ids are {', '.join(IDS)}")
        if self.severity not in RANK:
            raise ValueError(f"severity must be one of {tuple(RANK)}, got {self.severity!r}")

    @property
    def symptom(self) -> str:
        return IDS[self.id]

    def __str__(self) -> str:
        return printable("\n".join(_block(self)))


class Curve(NamedTuple):
    """What a card draws of a measurement."""

    points: list[tuple[float, float]]  #: (step, value)
    share: bool = False  #: of a whole: its axis goes from 0 to 100 %, not to the largest value


@dataclass(frozen=True)
class Diagnosis:
    """Answers about one codebook; prints as text, shows as HTML, gives JSON.

    Attributes:
        title: what was examined. answers: every question's `Finding`, gravest first.
        curves: {label: `Curve`}, drawn small in the HTML card.
        understood: how the columns of a log were read, a line each, such as
            "used_codes <- 8192 - train_Unused_code, split train".
    """

    title: str
    answers: tuple[Finding, ...]
    curves: dict[str, Curve] = field(default_factory=dict, repr=False)
    understood: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, title: str, answers: Iterable[Finding], curves: Mapping[str, Curve] | None = None
    ) -> Diagnosis:
        """Sorts the answers, gravest first."""
        return cls(
            title, tuple(sorted(answers, key=lambda a: RANK[a.severity])), dict(curves or {})
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found: critical, then warnings, then notes."""
        return tuple(a for a in self.answers if a.severity in FIRED)

    @property
    def unknown(self) -> tuple[Finding, ...]:
        """What the data given cannot decide; each ``remedy`` says what would."""
        return tuple(a for a in self.answers if a.severity == "unknown")

    @property
    def limits(self) -> list[tuple[str, str]]:
        """(id, how far one could see) of what was not found; the same of several layers once."""
        return sorted({(a.id, a.cause) for a in self.answers if a.severity == "clear" and a.cause})

    @property
    def verdict(self) -> str:
        """ "critical", "warning", "healthy", or "undecided"."""
        grave = {a.severity for a in self.answers} & set(GRAVE)
        if grave:
            return min(grave, key=RANK.__getitem__)
        return "healthy" if "healthy" in self.ids() else "undecided"

    def ids(self, *severities: Severity) -> set[str]:
        """Ids of the answers of these severities; none given: of all that fired."""
        return {a.id for a in self.answers if a.severity in (severities or FIRED)}

    def __getitem__(self, finding_id: str) -> Finding:
        """The gravest answer of an id. Raises KeyError if the question was not asked."""
        for answer in self.answers:
            if answer.id == finding_id:
                return answer
        raise KeyError(finding_id)

    def to_dict(self) -> dict:
        """Plain values, for JSON: no NaN, no infinity."""
        answers = [
            asdict(a) | {"symptom": a.symptom, "evidence": [_plain(asdict(e)) for e in a.evidence]}
            for a in self.answers
        ]
        return {
            "title": self.title,
            "verdict": self.verdict,
            "understood": list(self.understood),
            "answers": answers,
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        lines = ["read as:", *(f"  {line}" for line in self.understood), ""]
        lines = lines if self.understood else []
        lines += [f"{self.title}: {self.verdict}", ""]
        for answer in self.findings:
            lines += [*_block(answer), ""]
        for heading, severity in (("not found", "clear"), ("not applicable", "not applicable")):
            names = [_named(a) for a in self.answers if a.severity == severity]
            if names:
                lines += _wrapped(f"{heading}: ", ", ".join(names))
                for name, limit in self.limits if severity == "clear" else ():
                    lines += _wrapped(f"  {name}: ", limit)
                lines.append("")
        if self.unknown:
            lines.append("cannot be decided from this:")
            for answer in self.unknown:
                lines += _wrapped(f"  {_named(answer)}: ", f"{answer.cause} Needs {answer.remedy}.")
        return printable("\n".join(lines).rstrip())

    def _repr_html_(self) -> str:
        return card(self)


def _named(answer: Finding) -> str:
    return f"{answer.id} [{answer.subject}]" if answer.subject else answer.id


def _block(answer: Finding) -> list[str]:
    lines = [f"{answer.severity.upper():9}{_named(answer)}: {answer.symptom}"]
    lines += [f"         {e}" for e in answer.evidence]
    lines += _wrapped("  cause  ", answer.cause) if answer.cause else []
    lines += _wrapped("  remedy ", answer.remedy) if answer.remedy else []
    return lines


def _wrapped(first: str, text: str) -> list[str]:
    return textwrap.wrap(
        first + text, width=96, subsequent_indent="         ", drop_whitespace=True
    )


def _plain(values: dict) -> dict:
    """Numbers that JSON knows."""
    odd = {k: str(v) for k, v in values.items() if isinstance(v, float) and not math.isfinite(v)}
    return values | odd


def any_grave(answers: Iterable[Finding]) -> bool:
    """Whether one of them is critical or a warning."""
    return any(a.severity in GRAVE for a in answers)


def clear(finding_id: str, *evidence: Evidence | None, only: str = "") -> Finding:
    """It was looked for and not found; ``only`` is a sentence on how far one could see."""
    return Finding(finding_id, "clear", _there(evidence), only)


def unknown(finding_id: str, why: str, needs: str) -> Finding:
    """It cannot be decided: ``why`` is a sentence, ``needs`` completes "Needs ..."."""
    return Finding(finding_id, "unknown", cause=why, remedy=needs)


def not_applicable(finding_id: str, why: str) -> Finding:
    """The question makes no sense here; ``why`` is a sentence."""
    return Finding(finding_id, "not applicable", cause=why)


def fired(
    finding_id: str, severity: Severity, *evidence: Evidence | None, cause: str, remedy: str
) -> Finding:
    """It was found."""
    return Finding(finding_id, severity, _there(evidence), cause, remedy)


def _there(evidence: Iterable[Evidence | None]) -> tuple[Evidence, ...]:
    return tuple(e for e in evidence if e is not None)


WIDTH, HEIGHT = 210, 64  # pixels of a curve


def page(diagnosis: Diagnosis) -> str:
    """A whole HTML page of a diagnosis; it executes and fetches nothing."""
    return _rendered("page.html.j2", diagnosis)


def card(diagnosis: Diagnosis) -> str:
    """HTML of a diagnosis, to stand in a page."""
    return _rendered("card.html.j2", diagnosis)


def _rendered(name: str, diagnosis: Diagnosis) -> str:
    return template(name).render(
        d=diagnosis,
        curves=[_scaled(*item) for item in diagnosis.curves.items()],
        width=WIDTH,
        height=HEIGHT,
        rest=[
            (heading, [a for a in diagnosis.answers if a.severity == severity])
            for heading, severity in (
                ("Looked for and not found", "clear"),
                ("Not applicable", "not applicable"),
            )
        ],
    )


@cache
def template(name: str, package: str = "vqlib.diagnosis") -> jinja2.Template:
    """One of a ``package``'s folder "templates"."""
    loader = jinja2.PackageLoader(package, "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    return environment.get_template(name, globals={"palette": palette})


def _scaled(label: str, curve: Curve) -> dict:
    """A curve in pixels of its picture; its axis begins at 0."""
    points = curve.points
    top = 1.0 if curve.share else max(y for _, y in points) or 1.0
    first, last = points[0][0], points[-1][0]
    span = (last - first) or 1.0
    scaled = [
        (2 + (WIDTH - 4) * (x - first) / span, HEIGHT - 2 - (HEIGHT - 4) * max(0.0, y) / top)
        for x, y in points
    ]
    return {
        "label": label,
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in scaled),
        "end": scaled[-1],
        "last": points[-1][1],
        "top": top,
        "steps": (first, last),
        "percent": curve.share,
    }
