"""Figures of the trial: every effect, what was measured beside it, and the cycle as a graph."""

from __future__ import annotations

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from vqlib.diagnosis.palette import BLUE, FAINT, GREY, INK, ORANGE, PALE, SKY, VERMILION
from vqlib.lessons.effects import MARGIN, role

ROLE_LOOKS = {
    "drives": (BLUE, "s"),
    "modulates": (ORANGE, "D"),
    "no effect": (VERMILION, "X"),
    "undecided": (FAINT, "o"),
}
VERDICT_LOOKS = {
    "supported": (BLUE, "-"),
    "refuted": (VERMILION, (0, (2.2, 1.2))),
    "undecided": (GREY, (0, (1, 1))),
}


def forest(effects: pd.DataFrame, lost: float) -> Figure:
    """Every arm's effect: a dot a seed, the mean and its interval, coloured by its role.

    ``effects``: of `effects.paired`, in points. ``lost``: points that the baseline lost; the
    dotted line is half of it, the band the margin below which an effect does not matter.
    """
    figure, ax = plt.subplots(figsize=(9, 0.3 * len(effects) + 1.6))
    for y, row in enumerate(effects.itertuples()):
        color, marker = ROLE_LOOKS[role(row.low, row.high, lost)]
        ax.plot(row.values, np.full(len(row.values), y), ".", color=color, alpha=0.4, ms=6)
        ax.plot([row.low, row.high], [y, y], color=color, lw=2.2)
        ax.plot(row.mean, y, marker, color=color, ms=7)
    ax.axvspan(-MARGIN, MARGIN, color=PALE, zorder=0)
    ax.axvline(0, color=INK, lw=1)
    ax.axvline(lost / 2, color=INK, ls=":", lw=1)
    ax.set_yticks(range(len(effects)), effects.index)
    ax.set(
        ylim=(len(effects) - 0.5, -0.5),
        xlabel="change of validation utilization (points), paired by seed",
    )
    handles = [
        Line2D([], [], color=c, marker=m, lw=2.2, ms=7, label=name)
        for name, (c, m) in ROLE_LOOKS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


class Measure(NamedTuple):
    column: str
    title: str


MEASURES = (
    Measure("utilization", "codes used\n(share, validation)"),
    Measure("drift", "encoder's drift\n(degrees a step)"),
    Measure("lag", "codebook's lag\n(degrees)"),
    Measure("dead_distance", "dead codes from data\n(degrees)"),
)


def mechanism_dots(table: pd.DataFrame) -> Figure:
    """What was measured in each arm, one panel a measure: a dot a seed, a bar at the mean.

    ``table``: of `lessons.claims.mechanisms`. The dotted line is the baseline's mean.
    """
    arms = list(dict.fromkeys(table["arm"]))
    figure, panels = plt.subplots(
        1, len(MEASURES), sharey=True, figsize=(9.4, 0.28 * len(arms) + 1.3)
    )
    at = table["arm"].map(arms.index)
    for ax, (column, title) in zip(panels, MEASURES, strict=True):
        means = table.groupby("arm")[column].mean()
        ax.axvline(means["baseline"], color=INK, ls=":", lw=1)
        ax.plot(table[column], at, ".", color=SKY, ms=5)
        ax.plot(means[arms], range(len(arms)), "|", color=INK, ms=9, mew=2)
        ax.set_title(title, fontsize=10)
        ax.grid(axis="y", color=PALE)
        ax.set_xlim(left=0)
    panels[0].set_yticks(range(len(arms)), arms, fontsize=9)
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    return figure


class Node(NamedTuple):
    x: float
    y: float
    text: str
    outside: str = ""  #: of a cause outside the cycle: its hypothesis


NODES = {
    "1": Node(4.85, 7.5, "1  used a lot\nearly"),
    "2": Node(8.35, 7.5, "2  strengthened\nby EMA"),
    "3": Node(9.5, 4.5, "3  draws more\ninputs"),
    "4": Node(8.35, 1.65, "4  the others are\nused less"),
    "5": Node(4.85, 1.65, "5  their count\nis 0: dead"),
    "6": Node(3.7, 4.5, "6  not updated,\nnever back"),
    "start": Node(1.25, 7.5, "initialisation", "start"),
    "gradient": Node(1.25, 4.5, "no gradient\nto the codes", "gradient"),
    "counts": Node(12.1, 8.05, "cluster_size\nremembers", "counts"),
    "memory": Node(12.1, 6.2, "EMA's memory", "memory"),
    "pull": Node(12.2, 4.5, "commitment loss", "pull"),
    "drift": Node(12.1, 1.75, "the encoder\nmoves", "drift"),
}
ARROWS = {
    "1-2": ("1", "2"),
    "2-3": ("2", "3"),
    "3-4": ("3", "4"),
    "4-5": ("4", "5"),
    "5-6": ("5", "6"),
    "start": ("start", "1"),
    "gradient": ("gradient", "6"),
    "counts": ("counts", "2"),
    "memory": ("memory", "2"),
    "pull": ("pull", "3"),
    "drift": ("drift", "4"),
}
INNER = {
    "1-2": (6.6, 6.75),
    "2-3": (7.5, 5.55),
    "3-4": (7.5, 3.85),
    "4-5": (6.6, 2.4),
    "5-6": (5.6, 3.4),
}  # where the effects of the cycle's own arrows stand


def cycle(judged: pd.DataFrame) -> Figure:
    """The guide's cycle as a graph: each arrow carries the effect of the arm that tries it.

    ``judged``: of `effects.judge`. An arrow's width is the size of the effect, its colour and
    dashes the verdict. The thin arrow that closes the circle is not tried by itself.
    """
    figure, ax = plt.subplots(figsize=(9.4, 6.0))
    boxes = {name: _box(ax, node, judged) for name, node in NODES.items()}
    _join(ax, boxes["6"], boxes["1"], color=FAINT, lw=1, ls="-")
    for key, (source, target) in ARROWS.items():
        row = judged.loc[key]
        color, dashes = VERDICT_LOOKS[row["verdict"]]
        _join(ax, boxes[source], boxes[target], color=color, ls=dashes, lw=width(row["mean"]))
        if key in INNER:
            x, y = INNER[key]
            ax.text(x, y + 0.05, row["arm"], ha="center", va="bottom", fontsize=10)
            ax.text(
                x,
                y - 0.05,
                effect_text(row),
                ha="center",
                va="top",
                fontsize=10.5,
                color=color,
                fontweight="bold",
            )
    ax.set(xlim=(0, 13.4), ylim=(1.0, 8.75))
    ax.axis("off")
    handles = [
        Line2D([], [], color=c, ls=ls, lw=4, label=name) for name, (c, ls) in VERDICT_LOOKS.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=3,
        title_fontsize=10,
        handlelength=3.5,
        title="change of validation utilization by the intervention "
        "on each arrow (points, 95 % interval)",
    )
    return figure


def width(points: float) -> float:
    """Of an arrow, in typographic points, for an effect in points of utilization."""
    return 1.6 + 7 * min(abs(points), 100) / 100


def effect_text(row: pd.Series) -> str:
    """Effect and interval, rounded to whole points."""
    mean, *ends = (_signed(row[name]) for name in ("mean", "low", "high"))
    return mean if np.isnan(row["low"]) else f"{mean} [{', '.join(ends)}]"


def _signed(points: float) -> str:
    return f"{points:+.0f}".replace("-", "−") if abs(points) >= 0.5 else "0"


def _box(ax: Axes, node: Node, judged: pd.DataFrame):
    text, edge, face = node.text, INK, "#ffffff"
    if node.outside:
        row = judged.loc[node.outside]
        text, face = f"{text}\n{row['arm']}\n{effect_text(row)}", PALE
        edge = VERDICT_LOOKS[row["verdict"]][0]
    return ax.text(
        node.x,
        node.y,
        text,
        ha="center",
        va="center",
        fontsize=10,
        linespacing=1.3,
        zorder=4,
        bbox={"boxstyle": "round,pad=0.45", "fc": face, "ec": edge, "lw": 1.4},
    )


def _join(ax: Axes, source, target, **look) -> None:
    patch = FancyArrowPatch(
        source.get_position(),
        target.get_position(),
        patchA=source.get_bbox_patch(),
        patchB=target.get_bbox_patch(),
        shrinkA=3,
        shrinkB=3,
        zorder=5,  # after the boxes, whose size is known once they are drawn
        arrowstyle="-|>",
        mutation_scale=10 + 1.6 * look["lw"],
        joinstyle="miter",
        **look,
    )
    ax.add_patch(patch)
