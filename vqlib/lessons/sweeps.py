"""What a sweep's table shows: each arm's means, and its effects paired by seed; as a figure too."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from vqlib.lessons import effects
from vqlib.lessons.figures import curves
from vqlib.training.files import atomic


class Measure(NamedTuple):
    """A column of the table, what it is called, and what it is multiplied by to be shown."""

    column: str
    label: str
    scale: float
    form: str


MEASURES = (
    Measure("val_utilization", "utilization (%)", 100, "{:.1f}"),
    Measure("val_perplexity", "perplexity", 1, "{:.1f}"),
    Measure("val_recon_loss", "reconstruction error (MSE)", 1, "{:.5f}"),
)


def compared(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Each arm's mean of each of `MEASURES` on validation, and how far from the reference's.

    Args:
        table: of `experiments.sweep`. Runs that failed are left out, and so are arms without
            any other.
        reference: the arm that the others are compared with.

    Returns a row for each measure and arm: ``seeds`` and ``mean`` of all its runs; of the seeds
    that it shares with the reference their number, ``pairs``, and the mean ``difference``, with
    the bounds ``low`` and ``high`` of `effects.bootstrap` (NaN below five pairs).
    """
    well = table[table["problem"] == ""]
    rows = []
    for column, label, scale, _ in MEASURES if len(well) else ():
        means = scale * well.groupby("arm")[column].mean()
        seeds = well.groupby("arm")["seed"].count()
        there = reference in seeds
        differ = effects.paired(well, column, scale=scale, reference=reference) if there else {}
        for arm in dict.fromkeys(well["arm"]):
            row = {"measure": label, "arm": arm, "seeds": seeds[arm], "mean": means[arm]}
            row["pairs"] = seeds[arm] if there and arm == reference else 0
            if there and arm in differ.index:
                effect = differ.loc[arm]
                row["pairs"] = len(effect["values"])
                row |= {"difference": effect["mean"]} | dict(effect[["low", "high"]])
            rows.append(row)
    columns = ["measure", "arm", "seeds", "mean", "pairs", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def text(comparison: pd.DataFrame) -> str:
    """A comparison for the terminal, one block a measure."""
    blocks = []
    for _, label, _, form in MEASURES:
        rows = comparison[comparison["measure"] == label].set_index("arm")
        shown = pd.DataFrame({"seeds": rows["seeds"], "mean": rows["mean"].map(form.format)})
        shown["difference"] = [_difference(row, form) for row in rows.itertuples()]
        blocks.append(f"{label}\n{shown.rename_axis(None).to_string()}")
    return "\n\n".join(blocks)


def figure(table: pd.DataFrame, reference: str) -> Figure:
    """Above the runs and the mean of each arm, below its differences from the reference.

    One column for each of `MEASURES`; a dot is a seed, a line a 95 % interval. ``table`` as in
    `compared`.
    """
    well = table[table["problem"] == ""]
    height = 2 * (0.34 * well["arm"].nunique() + 1.2)
    drawn, axes = plt.subplots(2, len(MEASURES), figsize=(13, height), sharey=True)
    for (column, label, *_), (top, bottom) in zip(MEASURES, axes.T, strict=True):
        curves.effects(well, column, reference, label=label, ax=top)
        curves.differences(well, column, reference, label=f"{label}, difference", ax=bottom)
        for ax in (top, bottom):
            ax.locator_params(axis="x", nbins=5)
    return drawn


def write(table: pd.DataFrame, reference: str, folder: Path) -> pd.DataFrame:
    """Write table.csv, and if any run went well comparison.csv and comparison.png.

    Returns the comparison, of `compared`.
    """
    comparison = compared(table, reference)
    with atomic(folder / "table.csv") as file:
        table.to_csv(file, index=False)
    if len(comparison):
        with atomic(folder / "comparison.csv") as file:
            comparison.to_csv(file, index=False)
        curves.set_style()
        drawn = figure(table, reference)
        with atomic(folder / "comparison.png") as file:
            drawn.savefig(file, format="png")
        plt.close(drawn)
    return comparison


def _difference(row, form: str) -> str:
    if pd.isna(row.difference):
        return ""
    signed = form.replace("{:", "{:+")
    if pd.isna(row.low):
        return f"{signed.format(row.difference)} (too few seeds for an interval)"
    return f"{signed} [{signed}, {signed}]".format(row.difference, row.low, row.high)
