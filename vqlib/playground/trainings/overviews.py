"""The picture of the trainings as a figure that stands still, for readers without a kernel."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vqlib.diagnosis.palette import GREY
from vqlib.playground import drawing
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
            drawing.share_axis(ax)
    if runs:
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=3,
            frameon=False,
        )
    if use is not None:
        style = runs[name][0] if name in runs else None
        ax = figure.add_subplot(grid[1, :2])
        drawing.use(ax, use.counts, style.color if style else GREY)
        ax.set(ylim=(0.5, None), ylabel="times chosen")
        ax.set_title(f"Use of codes; {use.where}", fontsize=10)
    if gallery is not None:
        part = figure.add_subfigure(grid[1, 2:])
        part.suptitle(f"Pictures, and what “{name}” makes of them", fontsize=10)
        notes = [f"MSE {error:.4f}" for error in gallery.errors]
        rows = {"picture": gallery.originals, "rebuilt": gallery.reconstructions}
        drawing.gallery(part, rows, {"rebuilt": notes})
    return figure


def _curves(ax: Axes, runs: Mapping[str, tuple[Look, Curves]], column: int) -> None:
    for name, (style, curves) in runs.items():
        dash = (0, style.dash) if style.dash else "-"
        train, val = curves["train"].array(), curves["val"].array()
        ax.plot(train[:, 0], train[:, column], color=style.color, ls=dash, lw=1.6, label=name)
        ax.plot(val[:, 0], val[:, column], "o", color=style.color, mfc="none", ms=5)
    ax.set_xlabel("training step")
    ax.set_ylim(bottom=0)
