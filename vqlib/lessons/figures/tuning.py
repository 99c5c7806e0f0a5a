"""Figures of the tuning: crossed settings as heat maps, synergies, settings that travel."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vqlib.diagnosis.palette import BLUE, FAINT, INK, PALE, QUIET, VERMILION
from vqlib.lessons import effects, tuning
from vqlib.training.experiments import interval

LABELS = {
    "dead_code_threshold": "threshold ({})",
    "reset_refill": "refill (hits)",
    "reset_interval": "reset every n steps",
    "reset_donors": "donors",
    "reset_relative": "",
}
COLORS = "cividis"  # told apart by the colour-blind, and in grey


def heat_maps(
    table: pd.DataFrame, crossings: Mapping[str, tuning.Crossing], value: str = "utilization"
) -> Figure:
    """One panel a crossing: in each cell the mean in per cent, below it the change in points.

    ``table``: columns ``arm``, ``seed`` and ``value``, a share. The change is from the panel's
    reference (framed, if it is one of the cells), paired by seed, with half of its 95 % interval
    (Student's t).
    """
    panels = {title: c.cells(table, value) for title, c in crossings.items()}
    means = [values.mean() for cells in panels.values() for values in cells.values()]
    wide = table.pivot(index="seed", columns="arm", values=value)
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(down, across, figsize=(3.5 * across, 3.3 * down), squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, (title, cells) in zip(axes.flat, panels.items(), strict=False):
        crossing = crossings[title]
        image = _heat(ax, crossing, cells, wide[crossing.reference], (min(means), max(means)))
        ax.set_title(title, fontsize=11)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, pad=0.02)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bar.set_label(value)
    return figure


def _heat(
    ax: Axes,
    crossing: tuning.Crossing,
    cells: Mapping[tuple, pd.Series],
    reference: pd.Series,
    ends: tuple[float, float],
):
    rows, columns = crossing.rows, crossing.columns
    means = np.array([[cells[r, c].mean() for c in columns] for r in rows])
    image = ax.imshow(means, cmap=COLORS, vmin=ends[0], vmax=ends[1], aspect="auto")
    for (y, x), mean in np.ndenumerate(means):
        levels, text = (rows[y], columns[x]), f"{100 * mean:.0f}"
        if crossing.arm(*levels) == crossing.reference:
            frame = {"fill": False, "ec": VERMILION, "lw": 2}
            ax.add_patch(plt.Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, **frame))
        else:
            text += "\n" + _change(100 * (cells[levels] - reference).dropna())
        color = "white" if mean < (ends[0] + ends[1]) / 2 else INK
        ax.text(x, y, text, ha="center", va="center", fontsize=8.5, color=color)
    ax.set_xticks(range(len(columns)), [_level(crossing.column, c) for c in columns], fontsize=9)
    ax.set_yticks(range(len(rows)), [_level(crossing.row, r) for r in rows], fontsize=9)
    unit = "shares of N/K" if crossing.row == "reset_relative" else "hits a step"
    ax.set_xlabel(LABELS.get(crossing.column, crossing.column).format(unit), fontsize=10)
    ax.set_ylabel(LABELS.get(crossing.row, crossing.row).format(unit), fontsize=10)
    ax.tick_params(length=0)
    return image


def _level(field: str, value) -> str:
    if field == "reset_refill":
        return "thr. + 1" if value is None else f"{value:g} (N/K)"
    if field == "reset_relative":
        return ""
    return value.replace("_", "\n") if isinstance(value, str) else f"{value:g}"


def _change(points) -> str:
    """A change and half of its interval, in points."""
    mean, low, high = interval(points)
    text = f"{mean:+.0f}".replace("-", "−") if abs(mean) >= 0.5 else "0"
    return text if np.isnan(low) else f"{text} ± {(high - low) / 2:.0f}"


def synergies(judged: pd.DataFrame) -> Figure:
    """Each companion's effect alone, beside the reset, and the difference, with its interval.

    ``judged``: of `tuning.judged`, in points. The band is the margin of the rule.
    """
    looks = {"alone": (VERMILION, "o"), "beside": (BLUE, "s"), "more": (INK, "D")}
    words = {"alone": "without the reset", "beside": "beside the reset", "more": "interaction"}
    figure, ax = plt.subplots(figsize=(8.4, 0.75 * len(judged) + 1.4))
    for place, (column, (color, marker)) in enumerate(looks.items()):
        for y, (mean, low, high) in enumerate(judged[column]):
            at = y + 0.22 * (place - 1)
            ax.plot([low, high], [at, at], color=color, lw=2)
            label = words[column] if y == 0 else None
            ax.plot(mean, at, marker, color=color, ms=7, label=label)
    ax.axvspan(-effects.MARGIN, effects.MARGIN, color=PALE, zorder=0)
    ax.axvline(0, color=INK, lw=1)
    ax.set_yticks(range(len(judged)), judged.index)
    ax.set(ylim=(len(judged) - 0.5, -0.5), xlabel="change of validation utilization (points)")
    figure.legend(loc="outside lower center", ncols=3, fontsize=10)
    return figure


def travels(table: pd.DataFrame, value: str = "utilization") -> Figure:
    """How each setting does in every bed: a panel a bed, a dot a seed, a bar at the mean.

    ``table``: columns ``bed``, ``arm``, ``seed`` and ``value``. Settings that keep their hits
    are vermilion, those that keep their share of N/K blue.
    """
    beds = list(dict.fromkeys(table["bed"]))
    arms = list(dict.fromkeys(table["arm"]))
    figure, panels = plt.subplots(
        1, len(beds), sharey=True, figsize=(2.1 * len(beds) + 1.5, 0.34 * len(arms) + 1.5)
    )
    for ax, bed in zip(np.atleast_1d(panels), beds, strict=True):
        own = table[table["bed"] == bed]
        for y, arm in enumerate(arms):
            x = own.loc[own["arm"] == arm, value]
            color = VERMILION if "hits" in arm else BLUE if "shares" in arm else FAINT
            ax.plot(x, np.full(len(x), y), ".", color=color, alpha=0.5, ms=6)
            ax.plot(x.mean(), y, "|", color=color, ms=13, mew=2.5)
        ax.set_title(bed.replace(", ", "\n"), fontsize=10)
        ax.grid(axis="y", color=PALE)
        ax.set_xlim(left=0)
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.tick_params(axis="x", labelsize=8)
    np.atleast_1d(panels)[0].set_yticks(range(len(arms)), arms, fontsize=9)
    np.atleast_1d(panels)[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.supxlabel(f"validation {value}", fontsize=10, color=QUIET)
    return figure


def regret(regrets: pd.DataFrame) -> Figure:
    """How much better the chosen setting looked where it was chosen, over all ways to choose.

    ``regrets``: of `tuning.regrets`, in codes of perplexity.
    """
    figure, ax = plt.subplots(figsize=(6.4, 3.2))
    ax.hist(regrets["regret"], bins=25, color=BLUE, alpha=0.6)
    ax.axvline(0, color=INK, lw=1, ls=":", label="no regret")
    ax.axvline(regrets["regret"].mean(), color=VERMILION, lw=2.5, label="mean")
    ax.set(xlabel="regret (codes of perplexity)", ylabel="ways to halve the seeds")
    ax.legend(loc="upper right", fontsize=9)
    return figure
