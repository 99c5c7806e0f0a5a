"""diagnose: symptom, evidence, cause and remedy, from a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from vqlib.diagnosis import reset_rules, silence_rules, start_rules, training_rules, usage_rules
from vqlib.diagnosis.findings import Curve, Diagnosis, Finding, any_grave, fired, unknown
from vqlib.diagnosis.logs import HistoryError, Log, Settings, checked, in_hits
from vqlib.diagnosis.sources import read_all
from vqlib.training.runs import Run

RULES = (
    *usage_rules.RULES,
    *reset_rules.RULES,
    *silence_rules.RULES,
    *start_rules.RULES,
    *training_rules.RULES,
)
CURVES = (
    ("utilization", "train"),
    ("utilization", "val"),
    ("perplexity", "train"),
    ("resets", "train"),
    ("recon_loss", "train"),
)
POINTS = 200  # of a curve in the card

__all__ = ["HistoryError", "Log", "Settings", "diagnose"]


class Watched(Protocol):
    """A `vqlib.watch`, as far as it is asked."""

    @property
    def histories(self) -> Mapping[str, pd.DataFrame]: ...

    @property
    def settings(self) -> Mapping[str, dict]: ...


Source = Run | Watched | pd.DataFrame | Mapping[str, Any] | Sequence[Mapping] | str | Path


def diagnose(
    source: Source,
    *,
    codebook_size: int | None = None,
    tokens_per_step: float | None = None,
    dead_code_threshold: float | None = None,
    decay: float | None = None,
    reset_interval: float | None = None,
    learning_rate: float | None = None,
    dim: float | None = None,
    map: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Diagnosis:
    """What is wrong with a codebook, why, and what to do: from its history.

    Args:
        source: a `Run`; a history table (a DataFrame, or what makes one); the path of a log or
            of a run's folder; or a `vqlib.watch`. One column on the use of a codebook is
            enough, under the names that trainers give it (see `vqlib.diagnosis.reading.names`);
            each further column of `vqlib.history.COLUMNS` decides more. How the columns were
            understood is told first.
        codebook_size: K. tokens_per_step: N, tokens quantized in a training step.
        dead_code_threshold: in hits a step; 0: no reset. decay: of the counts.
        reset_interval: steps. learning_rate: the peak. dim: D, of a code. Each may also be a
            column; an argument goes before it.
        map: {quantity: column} for columns whose names are not understood, for example
            {"used_codes": "n_hit", "val/perplexity": "pp"}.
        title: shown above the answers.

    Returns:
        A `Diagnosis`: prints as text, shows as an HTML card, ``to_json()`` for scripts.

    Raises:
        HistoryError: a ValueError; names what cannot be used, with row and column.
    """
    given = {
        "codebook_size": codebook_size,
        "tokens_per_step": tokens_per_step,
        "dead_code_threshold": dead_code_threshold,
        "decay": decay,
        "reset_interval": reset_interval,
        "learning_rate": learning_rate,
        "dim": dim,
    }
    histories = getattr(source, "histories", None)
    if histories is None:
        return _of_logs(read_all(source, title, map, **given), title)
    return _of_layers(source, histories, title, given)


def _of_logs(logs: dict[str, Log], title: str | None) -> Diagnosis:
    """One diagnosis; if there are several codebooks, each answer names its own."""
    each = {level: _of_log(log) for level, log in logs.items()}
    if len(each) == 1:
        (only,) = each.values()
        return only
    named = {f"codebook {level}": d for level, d in each.items()}
    title = title or next(iter(each.values())).title
    return replace(_together(named, title), understood=next(iter(logs.values())).understood)


def _of_layers(
    watched: Any, histories: Mapping[str, pd.DataFrame], title: str | None, given: dict
) -> Diagnosis:
    """One diagnosis for all the layers of a watcher; each answer names its layer."""
    each, unseen = {}, []
    for layer, table in histories.items():
        if table.empty:
            unseen.append(layer)
            continue
        said = _given(in_hits(watched.settings[layer]))
        known = table.dropna(axis=1, how="all")  # our own columns: there is nothing to understand
        each[layer] = _of_log(checked(known, {}, said | _given(given), "history", layer))
    if not each:
        raise HistoryError(f"no forward was seen of the watched layers: {', '.join(unseen)}")
    if len(each) == 1 and not unseen:
        (only,) = each.values()
        found = replace(only, title=title or only.title)
    else:
        found = _together(each, title or "watched model", unseen)
    whose = getattr(watched, "counted", "")
    return replace(found, understood=(whose,) if whose else ())


def _together(each: Mapping[str, Diagnosis], title: str, unseen: Sequence[str] = ()) -> Diagnosis:
    """One diagnosis of several codebooks; each answer names its own."""
    answers = [replace(a, subject=name) for name, d in each.items() for a in d.answers]
    missing = unknown("codebook-collapse", "No forward of this layer was seen.", "a forward of it")
    answers += [replace(missing, subject=name) for name in unseen]
    curves = {
        f"{name}: {label}": c
        for name, d in each.items()
        for label, c in d.curves.items()
        if c.share
    }
    return Diagnosis.of(title, answers, curves)


def _given(values: dict) -> dict:
    return {name: value for name, value in values.items() if value is not None}


def _of_log(log: Log) -> Diagnosis:
    answers = [rule(log) for rule in RULES]
    found = Diagnosis.of(log.title, answers + _healthy(answers), _curves(log))
    return replace(found, understood=log.understood)


def _healthy(answers: list[Finding]) -> list[Finding]:
    """`healthy`, if the use of the codebook was examined and nothing grave was found."""
    by_id = {a.id: a for a in answers}
    if any_grave(answers) or by_id["codebook-collapse"].severity != "clear":
        return []
    return [
        fired(
            "healthy",
            "note",
            *by_id["codebook-collapse"].evidence,
            cause="The codebook is in use as far as the data show.",
            remedy="nothing to fix",
        )
    ]


def _curves(log: Log) -> dict[str, Curve]:
    curves = {}
    for column, split in CURVES:
        if log.has(column, split):
            rows = log.rows(column, split)
            kept = slice(None, None, max(1, len(rows) // POINTS))
            values = (rows[name].to_numpy(float)[kept].tolist() for name in ("step", column))
            points = list(zip(*values, strict=True))
            curves[f"{column} ({split})"] = Curve(points, share=column == "utilization")
    return curves
