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
    "dead_code_threshold": "threshold (hits a step)",
    "reset_refill": "refill (hits)",
    "reset_interval": "reset every n steps",
    "reset_donors": "donors",
}
COLORS = "cividis"  # told apart by the colour-blind, and in grey


def heat_maps(
    table: pd.DataFrame, crossings: Mapping[str, tuning.Crossing], value: str = "utilization"
) -> Figure:
    """One panel a crossing: in each cell the mean in per cent, below it the change in points.

    ``table``: columns ``arm``, ``seed`` and ``value``, a share. The change is from the panel's
    framed cell, paired by seed, with half of its 95 % interval (Student's t).
    """
    panels = {title: c.cells(table, value) for title, c in crossings.items()}
    means = [values.mean() for cells in panels.values() for values in cells.values()]
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(down, across, figsize=(3.5 * across, 3.3 * down), squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, (title, cells) in zip(axes.flat, panels.items(), strict=False):
        image = _heat(ax, crossings[title], cells, (min(means), max(means)))
        ax.set_title(title, fontsize=11)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, pad=0.02)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    bar.set_label(value)
    return figure


def _heat(ax: Axes, crossing: tuning.Crossing, cells: Mapping, ends: tuple[float, float]):
    rows, columns = crossing.rows, crossing.columns
    means = np.array([[cells[r, c].mean() for c in columns] for r in rows])
    image = ax.imshow(means, cmap=COLORS, vmin=ends[0], vmax=ends[1], aspect="auto")
    base = tuple(getattr(tuning.GUIDED, field) for field in (crossing.row, crossing.column))
    for (y, x), mean in np.ndenumerate(means):
        levels = rows[y], columns[x]
        change = "" if levels == base else _change(100 * (cells[levels] - cells[base]))
        dark = mean < (ends[0] + ends[1]) / 2
        text = f"{100 * mean:.0f}" + (f"\n{change}" if change else "")
        ax.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if dark else INK)
        if levels == base:
            frame = plt.Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, fill=False, ec=VERMILION, lw=2)
            ax.add_patch(frame)
    ax.set_xticks(range(len(columns)), [_level(crossing.column, c) for c in columns], fontsize=9)
    ax.set_yticks(range(len(rows)), [_level(crossing.row, r) for r in rows], fontsize=9)
    ax.set_xlabel(LABELS.get(crossing.column, crossing.column), fontsize=10)
    ax.set_ylabel(LABELS.get(crossing.row, crossing.row), fontsize=10)
    ax.tick_params(length=0)
    return image


def _level(field: str, value) -> str:
    if field == "reset_refill":
        return "thr. + 1" if value is None else f"{value:g} (N/K)"
    return str(value).replace("_", "\n") if isinstance(value, str) else f"{value:g}"


def _change(points) -> str:
    """A change and half of its interval, in points."""
    mean, low, high = interval(points)
    text = f"{mean:+.0f}".replace("-", "−")
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
        ax.xaxis.set_major_formatter(PercentFormatter(1))
        ax.tick_params(axis="x", labelsize=8)
    np.atleast_1d(panels)[0].set_yticks(range(len(arms)), arms, fontsize=9)
    np.atleast_1d(panels)[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.supxlabel(f"validation {value}", fontsize=10, color=QUIET)
    return figure


def halves(regrets: pd.DataFrame, codebook_size: int) -> Figure:
    """The score of the chosen setting on the seeds that chose it, and on the others.

    ``regrets``: of `tuning.regrets`; the score, a perplexity, is shown as a share of K.
    """
    figure, ax = plt.subplots(figsize=(6.4, 3.4))
    shown = {
        "on the seeds that chose": ("choosing", VERMILION),
        "on the others": ("confirming", BLUE),
    }
    every = np.concatenate([regrets[column] / codebook_size for column, _ in shown.values()])
    bins = np.linspace(every.min(), every.max(), 25)
    for label, (column, color) in shown.items():
        x = regrets[column] / codebook_size
        ax.hist(x, bins=bins, color=color, alpha=0.55, label=label)
        ax.axvline(x.mean(), color=color, lw=2)
    ax.set(xlabel="perplexity over K of the chosen setting", ylabel="ways to halve the seeds")
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(loc="upper left", fontsize=9)
    return figure
