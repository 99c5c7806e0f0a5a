"""An audit of the field: what the quantizer layers of known packages do, one row a layer."""

from __future__ import annotations

import csv
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pandas as pd
import torch

from vqlib.diagnosis.audit import audit
from vqlib.diagnosis.field.layers import LAYERS, READ, Layer
from vqlib.diagnosis.findings import FIRED, Diagnosis, Finding, template
from vqlib.extras import installed
from vqlib.training.places import PARENT

QUESTIONS = ("reset", "evaluation", "start", "ranks")
COLUMNS = (
    *("date", "command", "python", "torch", "package", "version", "layer"),
    *(part for question in QUESTIONS for part in (question, f"{question}_source")),
)
"""Of the table and of its CSV. An answer is "severity: words"."""
RECORDED = PARENT / "data" / "field.csv"
SYMBOLS = {
    "critical": "✖",
    "warning": "▲",
    "note": "●",
    "clear": "✔",
    "unknown": "?",
    "not applicable": "–",
}
Answer = tuple[str, str]  # severity, and words


def missing() -> dict[str, str]:
    """{package of the field that is not installed: the line that installs it}."""
    packages = dict.fromkeys(layer.package for layer in LAYERS)
    return {name: f"pip install {name}" for name in packages if not installed(name)}


def audit_field(
    layers: Iterable[Layer] = LAYERS,
    *,
    ranks: bool = True,
    command: str = "",
    told: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Audits those of ``layers`` whose package is installed.

    Args:
        layers: of `vqlib.diagnosis.field.layers`.
        ranks: also in two processes (some seconds for each layer with moving averages).
        command: goes into the table.
        told: gets a line before each layer.

    Returns:
        One row a layer, with `COLUMNS`. Without ``ranks`` the answers on them are "unknown". A
        layer that cannot be built or audited has "unknown" everywhere, with the error.
    """
    rows = []
    for layer in layers:
        if version := installed(layer.package):
            told(f"{layer.package} {version}: {layer.name}")
            rows.append(
                {
                    "date": time.strftime("%Y-%m-%d"),
                    "command": command,
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "package": layer.package,
                    "version": version,
                    "layer": layer.name,
                }
                | dict(_cells(layer, version, ranks))
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _cells(layer: Layer, version: str, ranks: bool) -> Iterator[tuple[str, str]]:
    """Of each question its answer and, if that was confirmed, where."""
    found = _audited(layer, ranks)
    for question in QUESTIONS:
        source = layer.source.get(question, "")
        severity, words = found if isinstance(found, tuple) else ANSWERS[question](found)
        if severity in FIRED and not source:
            severity, words = "unknown", "found, but not confirmed in the package's source"
        elif source and version != READ[layer.package]:
            source += f" (read at {READ[layer.package]})"
        yield question, f"{severity}: {words}"
        yield f"{question}_source", source


def _audited(layer: Layer, ranks: bool) -> Diagnosis | Answer:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other packages', of what they import
            return audit(layer.make, adapter=layer.adapter, dim=layer.dim, ranks=ranks)
    except Exception as error:  # another version may have moved or changed anything
        return "unknown", f"{type(error).__name__}: {error}".splitlines()[0][:200]


# --- an audit in words ---


def _numbers(answer: Finding) -> dict:
    return {e.name: e.value for e in answer.evidence}


def _idle(found: Diagnosis) -> str | None:
    """Why nothing moves codes in the forward pass; None if something does."""
    start = found["first-step-explosion"]
    if start.severity != "not applicable":
        return None
    if "no codebook" in start.cause:
        return "no learned codebook"
    return "not trained: no parameters" if "no parameters" in start.cause else "gradients only"


def _reset(found: Diagnosis) -> Answer:
    if why := _idle(found):
        return "not applicable", f"none ({why})"
    fires, lives = found["reset-never-fires"], found["reset-does-not-survive"]
    if "codes reset within a step" in _numbers(lives):
        return lives.severity, "overwritten in the same step: no code moves"
    if fires.severity == "note":
        return "not applicable", "none: off by default"
    if fires.severity not in ("clear", "not applicable"):
        return fires.severity, fires.cause
    if lives.severity in ("critical", "warning"):
        return lives.severity, "code moved, its count or sum is not: moved again at once"
    copies = found["duplicate-codes"]
    if copies.severity in FIRED:
        return copies.severity, "moves codes; several become copies of one"
    if lives.severity == "note":
        return "note", "moves codes; without a hit again at the next check"
    if lives.severity == "clear":
        steps = _numbers(lives)["steps until reset again without a hit"]
        if isinstance(steps, str):  # more than were waited for
            return "clear", "moves codes; they stay"
        return "clear", f"moves codes; without a hit again after {steps} steps"
    return "not applicable", "none seen"


def _evaluation(found: Diagnosis) -> Answer:
    answer = found["evaluation-changes-counts"]
    if answer.severity == "clear":
        return "clear", "changes nothing"
    numbers = _numbers(answer)
    if "before the first training step" in numbers:
        return answer.severity, "also starts the codes, if it comes before training"
    names = ", ".join(name.split(".")[-1] for name in str(numbers["they are"]).split(", "))
    reads = "training reads it" if answer.severity == "critical" else "training does not read it"
    return answer.severity, f"changes {names}; {reads}"


def _start(found: Diagnosis) -> Answer:
    if why := _idle(found):
        return "not applicable", why
    cold, explosion = found["cold-start"], found["first-step-explosion"]
    if explosion.severity in ("critical", "warning"):
        return explosion.severity, "codes without a hit explode in the first step"
    numbers = _numbers(cold)
    if "of these shrunk to less than half" in numbers:
        kept = numbers["their norm after the step, over before"]
        return cold.severity, f"first codes shrink to {100 * kept:.0f} % in the first step"
    if cold.severity == "note" and numbers.get("of these thrown away"):
        lost = f"{numbers['of these thrown away']} of {numbers['codes in use']}"
        return "note", f"{lost} random codes in use reset at once"
    if cold.severity == "clear":
        return "clear", "first codes are kept"
    if "transforms" in cold.cause:
        return cold.severity, "codes and tokens cannot be compared"
    return cold.severity, cold.cause


def _ranks(found: Diagnosis) -> Answer:
    answer = next((a for a in found.answers if a.id == "ranks-disagree"), None)
    if answer is None:
        return "unknown", "not asked"
    if why := _idle(found):
        return "not applicable", why
    if answer.severity == "clear" and "transforms" in found["cold-start"].cause:
        return "unknown", "stored codes agree; what is made of them was not compared"
    if answer.severity == "clear":
        return "clear", "agree"
    if answer.severity == "critical":
        early = "learns only" in answer.cause
        return "critical", "each learns from its own data" if early else "each resets for itself"
    return answer.severity, answer.cause


ANSWERS = {"reset": _reset, "evaluation": _evaluation, "start": _start, "ranks": _ranks}


# --- kept and shown ---


def recorded() -> pd.DataFrame:
    """The dated table of the repository. Raises FileNotFoundError without a repository."""
    return pd.read_csv(RECORDED, keep_default_na=False)


def write(table: pd.DataFrame, path: Path) -> None:
    """As CSV. Raises FileExistsError: nothing is overwritten."""
    with open(path, "x", encoding="utf-8", newline="") as file:
        table.to_csv(file, index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")


def differences(old: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    """Answers of layers in both tables that differ, a line each; what ``new`` leaves open is not
    compared."""
    keys = ["package", "layer"]
    both = old.merge(new, on=keys, suffixes=("_old", "_new"))
    return [
        f"{row.package} {row.layer}, {question}: {before!r} at {row.version_old}, {now!r} at "
        f"{row.version_new}"
        for row in both.itertuples()
        for question in QUESTIONS
        for before, now in [(getattr(row, f"{question}_old"), getattr(row, f"{question}_new"))]
        if before != now and not now.startswith("unknown")
    ]


def text(table: pd.DataFrame) -> str:
    """As lines for a terminal."""
    lines = []
    for (package, version), rows in table.groupby(["package", "version"], sort=False):
        lines.append(f"{package} {version}")
        for row in rows.to_dict("records"):
            lines.append(f"  {row['layer']}")
            for question in QUESTIONS:
                severity, words = row[question].split(": ", 1)
                lines.append(f"    {SYMBOLS[severity]} {question:11}{words}")
    return "\n".join(lines)


def html(table: pd.DataFrame) -> str:
    """As a table with colours; an answer's source shows when the mouse rests on it."""
    groups = [
        (package, version, [_shown(row) for row in rows.to_dict("records")])
        for (package, version), rows in table.groupby(["package", "version"], sort=False)
    ]
    dates = sorted(set(table["date"])) if len(table) else []
    return template("field.html.j2").render(
        groups=groups,
        questions=QUESTIONS,
        symbols=SYMBOLS,
        dates=" to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "",
        torch=", ".join(sorted(set(table["torch"]))),
    )


def _shown(row: dict) -> dict:
    cells = [(*row[q].split(": ", 1), row[f"{q}_source"]) for q in QUESTIONS]
    return {"layer": row["layer"], "cells": cells}


def command_line() -> str:
    """As it was typed, without the folder of the program."""
    return " ".join(["vqlib", *sys.argv[1:]])


def environment() -> str:
    """The versions that an audit depends on."""
    return f"Python {platform.python_version()}, torch {torch.__version__}"
