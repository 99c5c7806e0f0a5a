"""Notebook 06's comparison of all remedies on both beds, over ten seeds."""

from __future__ import annotations

import pandas as pd

from vqlib.lessons import beds
from vqlib.lessons.remedies import REMEDIES
from vqlib.training import experiments

SEEDS = range(10)


def run() -> pd.DataFrame:
    """A row for each bed, remedy and seed, with the measures of `beds.COLUMNS`."""
    tables = [
        experiments.sweep(beds.arms(bed, REMEDIES), SEEDS, beds.measure, key=beds.key())
        for bed in beds.BEDS
    ]
    table = pd.concat([t.assign(bed=bed) for bed, t in zip(beds.BEDS, tables, strict=True)])
    return table[["bed", "arm", "seed", *beds.COLUMNS, "problem"]].reset_index(drop=True)
