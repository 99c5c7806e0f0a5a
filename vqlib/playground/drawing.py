"""What several figures have in common: an axis of shares, the use of codes, rows of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import PercentFormatter

from vqlib.diagnosis.palette import INK


def share_axis(ax: Axes) -> None:
    """The vertical axis shows a share, from 0 to 100 %."""
    ax.set_ylim(0, 1.04)
    ax.yaxis.set_major_formatter(PercentFormatter(1))


def use(ax: Axes, counts: np.ndarray, color: str) -> None:
    """How often each code was chosen, most used first; dashed: the average N/K.

    ``counts``: (K,). Set the axis's bottom to 0.5 once all panels that share it are drawn.
    """
    c = np.sort(counts)[::-1]
    ax.fill_between(np.arange(len(c)), np.where(c > 0, c, np.nan), 0.5, step="mid", color=color)
    ax.axhline(c.mean(), color=INK, ls="--", lw=1)
    text = f"{(c == 0).sum()} of {len(c)}\nunused"
    ax.text(0.97, 0.93, text, transform=ax.transAxes, ha="right", va="top", fontsize=10)
    ax.set(yscale="log", xlabel="codes, most used first", xlim=(0, len(c)))


def gallery(
    figure: FigureBase,
    rows: Mapping[str, Sequence[np.ndarray]],
    notes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Pictures (H, W, 3) in named rows; ``notes``: {row: what stands beneath its pictures}."""
    columns = len(next(iter(rows.values())))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for ax, image in zip(line, images, strict=True):
            ax.imshow(image, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax, note in zip(line, (notes or {}).get(name, ()), strict=False):
            ax.set_xlabel(note, fontsize=9)
        line[0].set_ylabel(name, fontweight="bold")
