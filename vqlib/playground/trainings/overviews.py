"""The picture of the trainings as a figure that stands still, for readers without a kernel."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vqlib.playground.trainings.runview import Look
from vqlib.playground.trainings.worker import MEASURES, Curves, Gallery, Use

TITLES = {
    "utilization": "Utilization",
    "perplexity": "Perplexity",
    "recon_loss": "Reconstruction error (MSE)",
}


def overview(
    runs: Mapping[str, tuple[Look, Curves]], name: str, use: Use | None, gallery: Gallery | None
) -> Figure:
    """Curves of all ``runs`` over one another; use of codes and pictures of the run ``name``.

    Lines: training; circles: validation.
    """
    figure = plt.figure(figsize=(11.5, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 6, height_ratios=(3, 2))
    for i, measure in enumerate(MEASURES):
        ax = figure.add_subplot(grid[0, 2 * i : 2 * i + 2])
        _curves(ax, runs, i + 1)
        ax.set_title(TITLES[measure])
        if measure == "utilization":
            ax.yaxis.set_major_formatter(PercentFormatter(1))
            ax.set_ylim(0, 1.04)
    if runs:
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=3,
            frameon=False,
        )
    if use is not None:
        style = runs[name][0] if name in runs else None
        _bars(figure.add_subplot(grid[1, :2]), use, style.color if style else "#777777")
    if gallery is not None:
        _strip(figure.add_subplot(grid[1, 2:]), gallery, name)
    return figure


def _curves(ax: Axes, runs: Mapping[str, tuple[Look, Curves]], column: int) -> None:
    for name, (style, curves) in runs.items():
        dash = (0, style.dash) if style.dash else "-"
        train, val = curves["train"].array(), curves["val"].array()
        ax.plot(train[:, 0], train[:, column], color=style.color, ls=dash, lw=1.6, label=name)
        ax.plot(val[:, 0], val[:, column], "o", color=style.color, mfc="none", ms=5)
    ax.set_xlabel("training step")
    ax.set_ylim(bottom=0)


def _bars(ax: Axes, use: Use, color: str) -> None:
    counts = np.sort(use.counts)[::-1]
    ax.fill_between(np.arange(len(counts)), counts.clip(0.5), 0.5, step="mid", color=color)
    ax.axhline(counts.mean(), color="#222222", ls="--", lw=1)
    ax.set(
        yscale="log",
        ylim=(0.5, None),
        xlim=(0, len(counts)),
        ylabel="times chosen",
        xlabel=f"codes, most used first ({(counts == 0).sum()} unused)",
    )
    ax.set_title(f"Use of codes; {use.where}", fontsize=10)


def _strip(ax: Axes, gallery: Gallery, name: str) -> None:
    rows = [np.concatenate(list(row), axis=1) for row in (gallery.originals, gallery[1])]
    ax.imshow(np.concatenate(rows), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"Pictures, and what “{name}” makes of them", fontsize=10)
