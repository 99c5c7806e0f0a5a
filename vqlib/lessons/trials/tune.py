"""Notebook 05's grid: every arm at home over ten seeds, what is claimed over twelve, and travels.

The claims' arms have more seeds because an interaction is a difference of differences, and so
wider than an effect.
"""

from __future__ import annotations

import pandas as pd

from vqlib.lessons import tuning
from vqlib.training import experiments

SEEDS, CLAIM_SEEDS, BED_SEEDS = range(10), range(12), range(10)


def run() -> pd.DataFrame:
    """A row for each bed ("home" and `tuning.BEDS`), arm and seed."""
    grid = tuning.grid()
    claims = {arm: config for arm, config in grid.items() if arm in tuning.claim_arms()}
    rest = {arm: config for arm, config in grid.items() if arm not in claims}
    away = tuning.travels()
    parts = [
        _part("home", claims, CLAIM_SEEDS),
        _part("home", rest, SEEDS),
        *(
            _part(bed, {a: config for (b, a), config in away.items() if b == bed}, BED_SEEDS)
            for bed in tuning.BEDS
        ),
    ]
    return pd.concat(parts, ignore_index=True)


def _part(bed: str, arms: dict, seeds: range) -> pd.DataFrame:
    table = experiments.sweep(arms, seeds).rename(columns=tuning.RESULTS)
    return table.assign(bed=bed)[["bed", "arm", "seed", *tuning.RESULTS.values(), "problem"]]
