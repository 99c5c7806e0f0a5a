"""The diagnosis on trial: healthy runs that it must not call sick, planted faults it must find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import pandas as pd

from vqlib.diagnosis import diagnose
from vqlib.diagnosis.audit import audit
from vqlib.diagnosis.findings import IDS, Diagnosis
from vqlib.quantization.faults import EXPECTED, FAULTS
from vqlib.quantization.variants import named
from vqlib.training import experiments
from vqlib.training.config import TrainConfig
from vqlib.training.experiments import SMALL

BED = replace(
    SMALL, codebook_size=64, image_size=32, dead_code_threshold=1.0, val_every=40, trace_every=0
)
"""N/K 8, and 120 steps in about a second: the codebook collapses in it unless a reset acts."""

HEALED = {"dead_code_threshold": 0.1, "reset_relative": True, "reset_refill": 1.0}
REMEDIES: dict[str, dict] = {
    "still encoder": {"freeze_encoder_at": 0, "dead_code_threshold": 0.0},
    "still encoder, decay 0.99": {
        "freeze_encoder_at": 0,
        "dead_code_threshold": 0.0,
        "decay": 0.99,
    },
    "still encoder, random inputs": {
        "freeze_encoder_at": 0,
        "dead_code_threshold": 0.0,
        "variant": "random-inputs",
    },
    "guide's reset": {"dead_code_threshold": 1.0},
    "donors batch": HEALED | {"reset_donors": "batch"},
    "donors usage": HEALED | {"reset_donors": "usage"},
    "every 5 steps": HEALED | {"reset_donors": "batch", "reset_interval": 5},
    "distinct": HEALED | {"reset_donors": "top", "reset_distinct": True},
    "decay 0.75": HEALED | {"reset_donors": "batch", "decay": 0.75},
}
HEALTHY = 0.5  # of what uniform use would show, in validation: the truth a verdict is held against

BITES: dict[str, dict] = {
    "inconsistent-start": {"dead_code_threshold": 0.0},  # a reset would take the giants away
    # resets in most steps until then; of 64 codes half stay in use on some seeds
    "resets-end-early": {"dead_code_threshold": 2.0, "codebook_size": 128},
    "draws-with-replacement": {"codebook_size": 128, "reset_interval": 20},  # many at once
    "passes-two-dimensions": {"codebook_size": 128},  # more codes could show more dimensions
    "waits-for-zero": {"codebook_size": 128},  # of 64, more than half stay in use on some seeds
}
"""Settings beside `BED` in which a fault does what it is known for."""

BY_AUDIT = ("ranks-draw-alone", "unseeded-draws", "averages-twice")
"""Faults that one process's history cannot show: two processes, two runs or a known loss can."""


def healthy_settings() -> dict[str, TrainConfig]:
    """36 settings that keep a codebook in use, by name."""
    return {
        f"K {size}, batch {batch}, {name}": replace(
            BED, codebook_size=size, batch_size=batch, **changes
        )
        for size in (32, 64)
        for batch in (8, 16)
        for name, changes in REMEDIES.items()
    }


def faulty_settings(fault: str) -> TrainConfig:
    """The bed with a planted fault, where it bites."""
    return replace(BED, variant=fault, **BITES.get(fault, {}))


def examinations(
    runs_per_fault: int, healthy: int | None = None, first: int = 0, *, progress: bool = False
) -> dict[tuple[str, str], Diagnosis]:
    """{(planted fault, or "healthy"; which run): what was found}, trained or read from the cache.

    Args:
        runs_per_fault: seeds of each fault. healthy: settings; None: all of them.
        first: the first seed, and that of the healthy runs.
        progress: show a progress bar.
    """
    settings = list(healthy_settings().items())[:healthy]
    trained = [f for f in FAULTS if f not in BY_AUDIT]
    seeds = range(first, first + runs_per_fault)
    runs = experiments.compare(dict(settings), [first], progress=progress)
    runs |= experiments.compare({f: faulty_settings(f) for f in trained}, seeds, progress=progress)
    found = {}
    for (name, seed), run in runs.items():
        row = (name, f"seed {seed}") if name in trained else ("healthy", name)
        if row[0] != "healthy" or _in_use(run):
            found[row] = diagnose(run)
    return found | _audits(seeds)


def _in_use(run: experiments.Run) -> bool:
    last = run.split("val").iloc[-1]
    return last["utilization"] >= HEALTHY * last["uniform_utilization"]


def _audits(seeds: Iterable[int]) -> dict[tuple[str, str], Diagnosis]:
    """In this process: an audit starts processes of its own."""
    return {(fault, f"seed {s}"): _audit(fault, s) for fault in BY_AUDIT for s in seeds}


def _audit(fault: str, seed: int) -> Diagnosis:
    return audit(_factory(fault, seed), ranks=fault == "ranks-draw-alone", seed=seed)


def _factory(fault: str, seed: int) -> Callable:
    reset = BED.reset()
    return partial(
        named(fault), codebook_size=(16, 32, 64)[seed % 3], dim=16, reset=reset, seed=seed
    )


def confusion(found: Mapping[tuple[str, str], Diagnosis]) -> pd.DataFrame:
    """Share of examinations in which each finding fired: a row a fault, a column a finding.

    The first columns: how many runs, the instrument, the finding that the fault must lead to,
    and in what share it did (for healthy runs: the share with a critical finding).
    """
    rows = {}
    for name in dict.fromkeys(n for n, _ in found):
        group = [d for (n, _), d in found.items() if n == name]
        fired = {i: sum(i in d.ids() for d in group) / len(group) for i in IDS if i != "healthy"}
        expected = EXPECTED.get(name)
        false = sum(bool(d.ids("critical")) for d in group) / len(group)
        rows[name] = {
            "runs": len(group),
            "by": "audit" if name in BY_AUDIT else "history",
            "must find": expected or "nothing critical",
            "found": fired[expected] if expected else false,
        } | fired
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("planted")


def failures(table: pd.DataFrame, least: float = 0.95) -> list[str]:
    """Sentences on rows of `confusion` that miss a fault too often or call the healthy sick."""
    said = []
    for name, row in table.iterrows():
        if name == "healthy" and row["found"] > 0:
            said.append(f"{row['found']:.0%} of {row['runs']} healthy runs have a critical finding")
        elif name != "healthy" and row["found"] < least:
            said.append(f"{name}: {row['must find']} found in {row['found']:.0%} of {row['runs']}")
    return said


def confusion_text(table: pd.DataFrame) -> str:
    """A row a planted fault: how often its finding fired, and what else did.

    ``table``: from `confusion`.
    """
    findings = table.columns[table.columns.get_loc("found") + 1 :]

    def others(row: pd.Series) -> str:
        return ", ".join(
            f"{f} {row[f]:.0%}" for f in findings if row[f] > 0 and f != row["must find"]
        )

    shown = table[["by", "runs", "must find"]].assign(
        found=[f"{share:.0%}" for share in table["found"]],
        also=[others(row) for _, row in table.iterrows()],
    )
    return shown.rename(columns={"also": "what else fired"}).to_string()
