"""Notebook 06's comparison of all remedies on both beds, over ten seeds."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from vqlib.lessons import beds
from vqlib.lessons.remedies import REMEDIES
from vqlib.training import experiments

SEEDS = range(10)


def measured(
    names: Iterable[str], seeds: Iterable[int], on: Iterable[str] = beds.BEDS, **changes
) -> pd.DataFrame:
    """A row for each bed, remedy and seed, with the measures of `beds.COLUMNS` and ``problem``.

    A remedy that changes nothing on a bed has no row there. ``changes``: of `remedies.BED`.
    """
    names = list(names)
    configs = {(bed, n): c for bed in on for n, c in beds.arms(bed, names, **changes).items()}
    named = {" | ".join(key): config for key, config in configs.items()}
    table = experiments.sweep(named, seeds, beds.measure, key=beds.key())
    table[["bed", "arm"]] = table["arm"].str.split(" | ", regex=False, expand=True)
    return table[["bed", "arm", "seed", *beds.COLUMNS, "problem"]]


def run() -> pd.DataFrame:
    """All remedies on both beds."""
    return measured(REMEDIES, SEEDS)
