"""A Pareto figure: many arms in two measures, each with its intervals and a label of its own."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from scipy.optimize import isotonic_regression

from vqlib.diagnosis.palette import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PINK, VERMILION
from vqlib.lessons.effects import FEWEST, bootstrap
from vqlib.lessons.fronts import MEASURES, front

ACTS = {  # what a remedy acts on: its colour and marker
    "nothing": (VERMILION, "o"),
    "dead codes": (BLUE, "s"),
    "codebook": (GREEN, "D"),
    "assignment": (PINK, "^"),
    "encoder": (ORANGE, "P"),
    "lattice": (GREY, "X"),
}
GAP = 0.05  # of the axes' height, between two names
SIDE = 0.36  # of the points' width, free on each side for names


def pareto(table: pd.DataFrame, x: str, y: str, acts: Mapping[str, str]) -> Figure:
    """Means over seeds with 95 % intervals, the front as a dotted line, its arms in bold.

    ``table``: of one bed, columns ``arm``, ``seed``, ``x`` and ``y``. ``acts``: {arm: what it
    acts on}, of `ACTS`. Below five seeds there are no intervals.
    """
    means = table.groupby("arm", sort=False)[list(dict.fromkeys([x, y]))].mean()
    best = front(means, x, y)
    figure, ax = plt.subplots(figsize=(9.4, 6.4))
    for arm, mean in means.iterrows():
        color, marker = ACTS[acts[arm]]
        values = table[table["arm"] == arm]
        ends = {c: _interval(values[c]) for c in (x, y)}
        ax.plot(ends[x], [mean[y]] * 2, color=color, lw=1.2, alpha=0.7)
        ax.plot([mean[x]] * 2, ends[y], color=color, lw=1.2, alpha=0.7)
        ax.plot(mean[x], mean[y], marker, color=color, ms=9 if arm in best else 6, zorder=3)
    _staircase(ax, means.loc[best].sort_values(x), x, y)
    if y == "error":
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel=_with_side(x), ylabel=_with_side(y))
    _label(ax, means, x, y, bold=best)
    present = dict.fromkeys(acts[arm] for arm in means.index)
    handles = [Line2D([], [], color=ACTS[a][0], marker=ACTS[a][1], ls="", label=a) for a in present]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title="acts on")
    return figure


def _with_side(column: str) -> str:
    measure = MEASURES[column]
    return f"{measure.label} ({'more' if measure.sign > 0 else 'less'} is better)"


def _interval(values: pd.Series) -> tuple[float, float]:
    mean, low, high = bootstrap(values)
    return (low, high) if len(values) >= FEWEST else (mean, mean)


def _staircase(ax: Axes, best: pd.DataFrame, x: str, y: str) -> None:
    # between two arms of the front lies what one of them still beats
    where = "post" if MEASURES[x].sign < 0 else "pre"
    ax.step(best[x], best[y], where=where, color=INK, lw=1, ls=":", zorder=1)


def _label(ax: Axes, means: pd.DataFrame, x: str, y: str, bold: list[str]) -> None:
    """Names in a column on each side, each at the height of its point as far as it can."""
    ticks, (low, high) = ax.get_xticks(), ax.get_xlim()
    ax.margins(x=SIDE)  # room for the names
    ax.autoscale_view()
    ax.set_xticks([tick for tick in ticks if low <= tick <= high], minor=False)
    left = means[x] < means[x].median()
    to_axes = ax.transScale + ax.transLimits  # does not move with the layout, as pixels do
    for side, names in ((0, means.index[left]), (1, means.index[~left])):
        heights = to_axes.transform(means.loc[names, [x, y]].to_numpy())[:, 1]
        for name, height in zip(names, spread(heights, GAP), strict=True):
            ax.annotate(
                name,
                means.loc[name, [x, y]],
                xytext=(0.99 if side else 0.01, height),
                textcoords="axes fraction",
                ha="right" if side else "left",
                va="center",
                fontsize=9,
                fontweight="bold" if name in bold else "normal",
                arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.6, "shrinkB": 4},
            )


def spread(places, gap: float) -> np.ndarray:
    """Heights at least ``gap`` apart and half of it from 0 and 1, as close to ``places`` as can be.

    ``places`` (n,). If there is no room they leave 1. Least squares that keep the order: what is
    left of a place after its rank's gaps must not fall.
    """
    places = np.asarray(places, dtype=float)
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    low, high = gap / 2, max(gap / 2, 1 - gap * (len(places) - 0.5))
    heights = np.empty(len(places))
    in_order = isotonic_regression(places[order] - steps).x
    heights[order] = in_order.clip(low, high) + steps
    return heights
