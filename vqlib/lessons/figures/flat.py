"""Attempts at the guide's optimal level: the top code and the price in reconstruction."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from vqlib.diagnosis.palette import BLUE, GREY, INK, VERMILION
from vqlib.lessons.effects import bootstrap
from vqlib.lessons.guide import LEVELS


def attempts(table: pd.DataFrame, reference: str) -> Figure:
    """Each arm's top code, and its error over the reference's; means over seeds, 95 % intervals.

    ``table``: columns ``arm``, ``seed``, ``top_code_ratio`` and ``recon_loss``, every seed in
    every arm. Arms are sorted by their top code. Blue: the mean meets the line's condition.
    """
    error = table.pivot(index="seed", columns="arm", values="recon_loss")
    top = table.pivot(index="seed", columns="arm", values="top_code_ratio")
    arms = top.mean().sort_values(ascending=False).index
    ratios = error.div(error[reference], axis=0)
    figure, axes = plt.subplots(1, 2, sharey=True, figsize=(9.4, 0.36 * len(arms) + 1.2))
    panels = (
        (axes[0], top, LEVELS[-1].max_top_code_ratio, "top code, times the average"),
        (axes[1], ratios, 1.0, f"error over that of {reference}"),
    )
    for ax, values, line, label in panels:
        ax.axvline(line, color=GREY, lw=1, ls="--")
        for height, arm in enumerate(arms):
            mean, low, high = bootstrap(values[arm])
            color = BLUE if mean <= line else VERMILION
            ax.plot([low, high], [height, height], color=color, lw=2)
            ax.plot(mean, height, "o", color=color, ms=6)
        ax.set(xlabel=label)
        ax.tick_params(axis="y", length=0)
    axes[0].set_xscale("log")
    ticks = [t for t in (1, 2, 3, 5, 10, 20, 50) if t <= top.to_numpy().max() * 1.5]
    axes[0].set_xticks(ticks, [f"{t}" for t in ticks])
    axes[0].minorticks_off()
    axes[0].set_yticks(range(len(arms)), arms, color=INK)
    return figure
