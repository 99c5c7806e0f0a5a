"""Every figure of the suite: functions from tidy data to a Figure. Only this module knows seaborn.

An arm has one colour and marker wherever it appears (Okabe and Ito's palette, told apart by the
colour-blind), and a line style where curves lie close.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from vqlib.diagnosis.findings import IDS
from vqlib.diagnosis.palette import (
    AFTER,
    BEFORE,
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    QUIET,
    SKY,
    VERMILION,
)
from vqlib.lessons.effects import paired
from vqlib.lessons.guide import CURVE_BEFORE
from vqlib.playground import drawing
from vqlib.training.experiments import interval


class Look(NamedTuple):
    color: str
    marker: str
    line: str


LOOKS = {
    "baseline": Look(BEFORE, "o", "-"),
    "reset": Look(AFTER, "s", "--"),
    "default": Look(BEFORE, "o", "-"),
    "mended": Look(AFTER, "s", "--"),
    "threshold 0.5": Look(SKY, "v", "-."),
    "threshold 5": Look(PINK, "^", ":"),
    "threshold 10": Look(ORANGE, "h", (0, (5, 1, 1, 1))),
    "every 10 steps": Look(GREEN, "8", (0, (3, 1))),
    "frozen encoder": Look(GREEN, "X", "-."),
    "decay 0": Look(PINK, "H", ":"),
    "decay 0.99": Look(SKY, "p", "--"),
    "random start": Look(ORANGE, "D", (0, (5, 1, 1, 1))),
    "slow encoder": Look(GREY, "P", (0, (3, 1))),
    "reset, decay 0.75": Look(SKY, "<", "-."),
    "reset, decay 0.7": Look(PINK, ">", ":"),
    "reset, beta 0.1": Look(ORANGE, "d", (0, (5, 1, 1, 1))),
}
GUIDE = Look(INK, "*", "none")
_SPARE = Look(GREY, "D", "-")


def set_style() -> None:
    """The suite's look; call it once at the top of a notebook."""
    sns.set_theme(
        style="ticks",
        rc={
            "figure.dpi": 110,
            "figure.figsize": (8, 4.2),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "axes.edgecolor": QUIET,
            "legend.frameon": False,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
        },
    )


def look(name: str) -> Look:
    return LOOKS.get(name, _SPARE)


def utilization_curves(
    table: pd.DataFrame, arms: Sequence[str] | None = None, *, guide: bool = True, ax: Axes = None
) -> Axes:
    """Training utilization over steps: one thin line a seed, a thick one for the median.

    ``table``: from `experiments.history_table`. ``guide`` adds the guide's four points.
    """
    ax = ax or plt.subplots()[1]
    train = table[table["split"] == "train"]
    for name in arms or list(train["arm"].unique()):
        style, rows = look(name), train[train["arm"] == name]
        for _, seed in rows.groupby("seed"):
            ax.plot(seed["step"], seed["utilization"], color=style.color, alpha=0.25, lw=0.8)
        median = rows.groupby("step")["utilization"].median()
        ax.plot(
            median.index,
            median,
            color=style.color,
            lw=2,
            label=name,
            marker=style.marker,
            markevery=max(1, len(median) // 8),
            ms=7,
        )
    if guide:
        x, y = zip(*CURVE_BEFORE.items(), strict=True)
        ax.plot(x, y, GUIDE.marker, color=GUIDE.color, ms=13, label="the guide", zorder=5)
    ax.set(xlabel="training step", ylabel="utilization (one step)")
    ax.set_xlim(left=0)
    drawing.share_axis(ax)
    ax.legend(loc="best")
    return ax


def use_histograms(counts: Mapping[str, Tensor], *, arm: str | None = None) -> Figure:
    """How often each code is used, most used first, one panel an entry, same axes.

    ``counts``: {name: (K,)}. The dashed line is the average N/K. Colours are those of
    ``arm``; None: each name is an arm.
    """
    figure, axes = plt.subplots(
        1,
        len(counts),
        figsize=(3.1 * len(counts) + 0.6, 3.2),
        sharey=True,
        sharex=True,
        squeeze=False,
    )
    for ax, (name, values) in zip(axes[0], counts.items(), strict=True):
        drawing.use(ax, values.numpy(), look(arm or name).color)
        ax.set_title(name)
    axes[0, 0].set_ylabel("times chosen")
    axes[0, 0].set_ylim(bottom=0.5)
    return figure


def drift_view(codebooks: Tensor, probes: Tensor, counts: Tensor, steps: Sequence[int]) -> Figure:
    """Codes and encoder outputs in one plane, side by side at several moments.

    ``codebooks`` (t, K, D), ``probes`` (t, P, D) unit encoder outputs, ``counts`` (t, K). The
    plane is the outputs' first two principal axes over all the moments shown.
    """
    cloud = torch.cat([probes.flatten(0, 1), codebooks.flatten(0, 1)])
    center = cloud.mean(dim=0)
    axes_2d = torch.pca_lowrank(cloud, q=2, center=True, niter=4)[2]
    figure, panels = plt.subplots(
        1, len(steps), figsize=(3.3 * len(steps), 3.5), sharex=True, sharey=True, squeeze=False
    )
    for ax, book, probe, c, step in zip(panels[0], codebooks, probes, counts, steps, strict=True):
        outputs, codes = (probe - center) @ axes_2d, (book - center) @ axes_2d
        ax.plot(*outputs.T.numpy(), ".", color=SKY, ms=3, alpha=0.5, label="encoder outputs")
        dead = (c == 0).numpy()
        ax.plot(*codes[dead].T.numpy(), "x", color=FAINT, ms=4, mew=0.8, label="unused codes")
        ax.plot(*codes[~dead].T.numpy(), "o", color=VERMILION, ms=3.5, label="used codes")
        ax.set_title(f"step {step}: {1 - dead.mean():.0%} used")
        ax.set(xticks=[], yticks=[])
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        markerscale=1.8,
    )
    return figure


def count_map(cluster_size: Tensor, steps: Tensor, *, title: str = "") -> Figure:
    """EMA counts as a picture: a row a code, sorted by how long it stays above one hit a step.

    ``cluster_size``: (t, K). ``steps``: (t,).
    """
    order = (cluster_size >= 1).sum(dim=0).argsort(descending=True)
    values = np.log10(cluster_size[:, order].T.clamp(min=1e-3).numpy())
    figure, ax = plt.subplots(figsize=(8, 4.4))
    image = ax.imshow(
        values,
        aspect="auto",
        cmap="cividis",
        interpolation="nearest",
        vmin=-3,
        vmax=3,
        extent=(int(steps[0]), int(steps[-1]), len(order), 0),
    )
    bar = figure.colorbar(image, ax=ax, ticks=[-3, -2, -1, 0, 1, 2, 3])
    bar.set_label("cluster_size (hits a step)")
    bar.ax.set_yticklabels(["≤ 0.001", "0.01", "0.1", "1", "10", "100", "≥ 1000"])
    ax.set(xlabel="training step", ylabel="codes, longest-lived first", title=title)
    return figure


def effects(
    table: pd.DataFrame, value: str, reference: str, *, label: str = "", ax: Axes = None
) -> Axes:
    """One row an arm: each seed a dot, the mean and its 95 % interval (Student's t).

    ``table``: columns ``arm``, ``seed`` and ``value``; a dotted line marks ``reference``'s mean.
    """
    arms = list(dict.fromkeys(table["arm"]))
    ax = ax or plt.subplots(figsize=(8, 0.55 * len(arms) + 1.3))[1]
    for y, name in enumerate(arms):
        style, x = look(name), table.loc[table["arm"] == name, value].to_numpy()
        mean, low, high = interval(x)
        ax.plot(x, np.full(len(x), y), ".", color=style.color, alpha=0.5, ms=7)
        ax.errorbar(
            mean,
            y,
            xerr=[[mean - low], [high - mean]],
            fmt=style.marker,
            ms=9,
            color=style.color,
            capsize=4,
            lw=2,
        )
    ax.axvline(table.loc[table["arm"] == reference, value].mean(), color=INK, ls=":", lw=1)
    ax.set_yticks(range(len(arms)), arms)
    ax.set(xlabel=label or value, ylim=(len(arms) - 0.5, -0.5))
    if "utilization" in value:
        ax.xaxis.set_major_formatter(PercentFormatter(1))
    return ax


def differences(
    table: pd.DataFrame, value: str, reference: str, *, label: str = "", ax: Axes = None
) -> Axes:
    """One row an arm: its difference from ``reference`` on each seed, the mean, the interval.

    ``table``: columns ``arm``, ``seed`` and ``value``, as for `lessons.effects.paired`.
    """
    arms = list(dict.fromkeys(table["arm"]))
    ax = ax or plt.subplots(figsize=(8, 0.55 * len(arms) + 1.3))[1]
    if reference in arms:
        for row in paired(table, value, scale=1, reference=reference).itertuples():
            y, style = arms.index(row.Index), look(row.Index)
            seeds = np.full(len(row.values), y)
            ax.plot(row.values, seeds, ".", color=style.color, alpha=0.5, ms=7)
            ax.plot([row.low, row.high], [y, y], color=style.color, lw=2)
            ax.plot(row.mean, y, style.marker, color=style.color, ms=9)
    ax.axvline(0, color=INK, ls=":", lw=1)
    ax.set_yticks(range(len(arms)), arms)
    ax.set(xlabel=label or value, ylim=(len(arms) - 0.5, -0.5))
    if "utilization" in value:
        ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))  # points
    return ax


def drift_curves(table: pd.DataFrame, *, ax: Axes = None) -> Axes:
    """How far the encoder's outputs turn in a step, one line an arm (median over seeds).

    ``table``: from `experiments.history_table`.
    """
    ax = ax or plt.subplots()[1]
    measured = table.dropna(subset=["drift"])
    for name in measured["arm"].unique():
        style = look(name)
        median = measured[measured["arm"] == name].groupby("step")["drift"].median()
        ax.plot(
            median.index,
            median.rolling(5, min_periods=1).mean(),
            color=style.color,
            ls=style.line,
            lw=2,
            label=name,
        )
    ax.set(xlabel="training step", ylabel="drift (degrees a step)")
    ax.legend(loc="best")
    return ax


def reset_lives(trace: Mapping[str, Tensor], *, threshold: float, codes: int = 6) -> Figure:
    """EMA counts of the codes reset first, with a dot at each reset of theirs.

    ``trace``: of a run with ``trace_every``. One panel a code, same axes.
    """
    when, which, _ = trace.get("reset_events", torch.zeros(0, 3, dtype=torch.int64)).T
    chosen = list(dict.fromkeys(which.tolist()))[:codes]
    columns = max(1, (len(chosen) + 1) // 2)
    figure, axes = plt.subplots(
        2, columns, figsize=(2.9 * columns + 0.6, 4.2), sharex=True, sharey=True, squeeze=False
    )
    for ax, code in zip(axes.flat, chosen, strict=False):
        ax.plot(trace["steps"], trace["cluster_size"][:, code], color=look("reset").color, lw=1.5)
        resets = when[which == code]
        ax.plot(resets, np.full(len(resets), threshold + 1), "o", color=ORANGE, ms=5, mec=INK)
        ax.axhline(threshold, color=INK, ls="--", lw=1)
        ax.set_title(f"code {code}: {len(resets)} reset{'s' * (len(resets) != 1)}", fontsize=10)
        ax.set_yscale("symlog", linthresh=1)
    axes[0, 0].set_ylim(bottom=0)  # shared, so once all is drawn
    figure.supxlabel("training step", fontsize=11)
    figure.supylabel("cluster_size (hits a step)", fontsize=11)
    return figure


def reset_activity(history: pd.DataFrame, codebook_size: int, *, limit: float = 0.1) -> Figure:
    """Resets over time, new and repeated, beside the guide's limit; and how many survived.

    ``history``: of one run.
    """
    train = history[history["split"] == "train"]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, height_ratios=(3, 2))
    first = train["resets"] - train["re_resets"]
    top.bar(train["step"], first, width=1.0, color=BLUE, label="first reset of a code")
    top.bar(
        train["step"],
        train["re_resets"],
        width=1.0,
        bottom=first,
        color=ORANGE,
        label="reset before",
    )
    top.axhline(limit * codebook_size, color=INK, ls="--", lw=1)
    top.text(1, limit * codebook_size, f" {limit:.0%} of the codebook", va="bottom", fontsize=9)
    top.set(ylabel="codes reset a step")
    top.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    smooth = train["survived"].rolling(25, min_periods=1).mean()
    bottom.plot(train["step"], smooth, color=GREEN, lw=2)
    bottom.set(ylabel="survived", xlabel="training step")
    drawing.share_axis(bottom)
    return figure


def before_after(table: pd.DataFrame, counts: Mapping[str, Tensor]) -> Figure:
    """The headline: utilization over training, and the final use of codes, before and after.

    ``table``: history of the arms named by ``counts``; ``counts``: {arm: (K,)} on validation.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.4), width_ratios=(1.25, 1))
    utilization_curves(table, list(counts), ax=left)
    left.set_title("Codes in use while training")
    for name, values in counts.items():
        style = look(name)
        shares = values.float().sort(descending=True).values
        shares = (shares / shares.mean()).numpy()
        used = int((shares > 0).sum())
        right.plot(np.arange(1, used + 1), shares[:used], color=style.color, ls=style.line, lw=2.4)
        right.plot(used, shares[used - 1], style.marker, color=style.color, ms=8)
        right.annotate(
            f"{name}: {used} of {len(shares)} used",
            (used // 2, shares[used // 2]),
            xytext=(6, 12),
            textcoords="offset points",
            color=style.color,
            fontweight="bold",
        )
    right.axhline(1, color=INK, ls=":", lw=1)
    right.set(
        xlabel="codes, most used first",
        ylabel="use / average use",
        yscale="log",
        xlim=(0, len(shares)),
    )
    right.set_title("Use of each code in validation")
    return figure


def confusion(table: pd.DataFrame) -> Figure:
    """Planted faults against findings: the share of runs in which each fired.

    ``table``: from `selftest.confusion`. The finding that a fault must lead to is framed.
    """
    findings = [c for c in table.columns if c in IDS and table[c].max() > 0]
    shares = 100 * table[findings].astype(float)
    figure, ax = plt.subplots(figsize=(0.62 * len(findings) + 3.2, 0.42 * len(table) + 2.4))
    sns.heatmap(
        shares,
        ax=ax,
        cmap="Blues",
        vmin=0,
        vmax=100,
        annot=True,
        fmt=".0f",
        square=False,
        linewidths=0.6,
        cbar=False,
        annot_kws={"size": 9},
    )
    for y, expected in enumerate(table["must find"]):
        if expected in findings:
            box = (findings.index(expected), y)
            ax.add_patch(Rectangle(box, 1, 1, fill=False, ec=VERMILION, lw=2.2, clip_on=False))
    labels = [f"{name} ({row['by']}, {row['runs']})" for name, row in table.iterrows()]
    ax.set_yticklabels(labels, rotation=0)
    ax.set_xticklabels(findings, rotation=40, ha="right")
    ax.set(xlabel="", ylabel="planted (instrument, runs)")
    ax.set_title("Runs in which a finding fired (%)")
    return figure
