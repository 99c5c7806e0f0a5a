"""Still pictures of worlds: the same as the playground shows, for readers without a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Wedge

from vqlib.diagnosis.palette import AFTER, BEFORE, FAINT, GREY, INK
from vqlib.playground.drawing import share_axis
from vqlib.playground.frames import DEAD_AFTER, REACH, rule
from vqlib.playground.world import Setting, World

COLORS = {"A": (BEFORE, "-"), "B": (AFTER, "--")}
CELLS, DIRECTIONS = 360, 1440


def worlds(shown: Mapping[str, World]) -> Figure:
    """Each world's picture, and beneath them the curves of all: use, perplexity, top code."""
    columns = max(3, len(shown))
    figure = plt.figure(figsize=(9.2, 6.4))
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 1.15))
    above, below = grid[0].subgridspec(1, len(shown)), grid[1].subgridspec(1, columns)
    for i, (side, world) in enumerate(shown.items()):
        picture(figure.add_subplot(above[i]), world, side)
    named = (
        ("utilization", "codes in use"),
        ("perplexity", "perplexity / K"),
        ("top_code_ratio", "top code / average"),
    )
    for i, (name, text) in enumerate(named):
        _curves(figure.add_subplot(below[i]), shown, name, text)
    return figure


def picture(axes: Axes, world: World, side: str = "A") -> None:
    """Tokens, cells and codes of one world; a cross has not been chosen for 20 steps."""
    color, _ = COLORS[side]
    tints = _tints(world, color)
    if world.setting.surface == "circle":
        _ring(axes, world, tints)
    else:
        _cells(axes, world, tints)
    axes.scatter(*world.points.T, s=2, color=GREY, alpha=0.35, linewidths=0)
    places = world.places().clamp(-0.98 * REACH, 0.98 * REACH)
    dead = world.idle >= DEAD_AFTER
    edge = {"edgecolor": "white", "linewidths": 0.6}
    axes.scatter(*places[~dead].T, s=34, color=color, zorder=3, label="in use", **edge)
    axes.scatter(*places[dead].T, s=30, marker="x", color=INK, zorder=3, label="dead")
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], aspect="equal")
    axes.set_title(f"{side}: {title(world.setting)}, step {world.step_number}", fontsize=10)
    axes.legend(loc="upper right", fontsize=8, frameon=True, framealpha=0.8)


def title(setting: Setting) -> str:
    """A setting in a few words."""
    return f"K {setting.codebook_size}, decay {setting.decay:g}, {rule(setting)}"


def _tints(world: World, color: str) -> np.ndarray:
    """(K, 3): a cell's colour by its code's hits, white for none, full for eight times N/K."""
    share = world.counts.numpy() * len(world.counts) / max(1, float(world.counts.sum()))
    strength = 0.42 * np.minimum(1, np.log2(1 + share) / 3.2)[:, None]
    return 0.98 + strength * (np.array(to_rgb(color)) - 0.98)


def _ring(axes: Axes, world: World, tints: np.ndarray) -> None:
    """On the circle a cell is an arc: drawn as a piece of a ring around it."""
    labels = world.sectors(DIRECTIONS).numpy()
    ends = [0, *(np.flatnonzero(np.diff(labels)) + 1), DIRECTIONS]
    for start, end in pairwise(ends):
        angles = (360 * start / DIRECTIONS, 360 * end / DIRECTIONS)
        look = {"facecolor": tints[labels[start]], "edgecolor": FAINT, "lw": 0.5}
        axes.add_patch(Wedge((0, 0), 1.3, *angles, width=0.24, **look))
    axes.add_patch(plt.Circle((0, 0), 1, fill=False, color=GREY, lw=0.8))


def _cells(axes: Axes, world: World, tints: np.ndarray) -> None:
    labels = world.cells(CELLS, REACH).numpy()
    extent = (-REACH, REACH, -REACH, REACH)
    axes.imshow(tints[labels], extent=extent, interpolation="nearest")
    border = np.zeros(labels.shape, bool)
    border[:-1] |= labels[:-1] != labels[1:]
    border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    ink = np.zeros((*border.shape, 4))
    ink[border] = 0, 0, 0, 0.3
    axes.imshow(ink, extent=extent)


def _curves(axes: Axes, shown: Mapping[str, World], name: str, text: str) -> None:
    for side, world in shown.items():
        color, line = COLORS[side]
        steps = [row["step"] for row in world.rows]
        axes.plot(steps, [row[name] for row in world.rows], line, color=color, lw=1.6)
    if name != "top_code_ratio":
        share_axis(axes)
    else:
        axes.set_ylim(bottom=0)
    axes.set_title(text, fontsize=10)
    axes.set_xlabel("step", fontsize=9)
