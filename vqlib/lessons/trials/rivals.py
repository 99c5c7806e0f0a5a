"""Notebook 06's comparison of all remedies on both beds, over ten seeds."""

from __future__ import annotations

import pandas as pd

from vqlib.lessons import beds
from vqlib.lessons.remedies import REMEDIES
from vqlib.training import experiments

SEEDS = range(10)


def run() -> pd.DataFrame:
    """A row for each bed, remedy and seed, with the measures of `beds.COLUMNS`."""
    configs = {(bed, n): c for bed in beds.BEDS for n, c in beds.arms(bed, REMEDIES).items()}
    named = {" | ".join(key): config for key, config in configs.items()}
    table = experiments.sweep(named, SEEDS, beds.measure, key=beds.key())
    table[["bed", "arm"]] = table["arm"].str.split(" | ", regex=False, expand=True)
    return table[["bed", "arm", "seed", *beds.COLUMNS, "problem"]]
