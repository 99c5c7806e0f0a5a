"""One demonstration with a target for each lesson; notebooks show it and set it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vqlib.diagnosis import diagnose
from vqlib.diagnosis.findings import Diagnosis
from vqlib.diagnosis.palette import BLUE, FAINT, INK, SEVERITIES, VERMILION
from vqlib.lessons import fronts, percent
from vqlib.lessons.figures.fronts import pareto
from vqlib.playground import stills
from vqlib.playground.controls import Choice, Slider, Switch
from vqlib.playground.demos import Demo
from vqlib.playground.drawing import share_axis
from vqlib.playground.world import Setting, World, run
from vqlib.quantization import usage
from vqlib.quantization.reset import DeadCodeReset

USED, UNUSED = VERMILION, FAINT
SHOWN = 0.95  # share that a window should show of a codebook in full use
SPARE = 1.05  # so much more than the fewest tokens still counts as the fewest

# 01: what a window can show

CODES = 512


class Window(NamedTuple):
    tokens: int
    skew: float
    shares: np.ndarray  #: (K,), probability of each code

    def shown(self, tokens) -> np.ndarray:
        """Expected utilization in windows of so many ``tokens`` (n,)."""
        missed = np.exp(np.multiply.outer(tokens, np.log1p(-self.shares)))
        return 1 - missed.mean(axis=-1)


def window() -> Demo:
    """Lesson 01: tokens and skew of use against the utilization that a window shows."""
    fewest = next(n for n in range(10**6) if usage.uniform_utilization(CODES, n) >= SHOWN)
    return Demo(
        [
            Slider(
                "tokens",
                "window",
                1000,
                100,
                100_000,
                0.005,
                "tokens",
                log=True,
                help="how many tokens are counted",
            ),
            Slider(
                "skew",
                "skew of use",
                1.0,
                0.0,
                2.0,
                0.1,
                "exponent",
                help="a code's share falls as its rank to this power; at 0 all are equal",
            ),
        ],
        lambda tokens, skew: Window(round(tokens), skew, _zipf(skew)),
        _draw_window,
        lambda w: (
            f"A codebook of {CODES} codes, all in use with skew {w.skew:.1f}, shows "
            f"{percent(w.shown(w.tokens))} in a window of {w.tokens:,} tokens."
        ),
        target=f"with perfectly even use, the fewest tokens that show {100 * SHOWN:.0f} % (within "
        f"{100 * (SPARE - 1):.0f} %)",
        reached=lambda w: w.skew == 0 and fewest <= w.tokens <= SPARE * fewest,
    )


def _zipf(skew: float) -> np.ndarray:
    shares = np.arange(1, CODES + 1) ** -float(skew)
    return shares / shares.sum()


def _draw_window(w: Window) -> Figure:
    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    tokens = np.geomspace(100, 100_000, 120)
    even = w._replace(shares=_zipf(0.0))
    ax.plot(tokens, even.shown(tokens), ls=":", color=INK, label="even use")
    ax.plot(tokens, w.shown(tokens), color=USED, lw=2, label=f"skew {w.skew:.1f}")
    ax.plot(w.tokens, w.shown(w.tokens), "o", color=USED, ms=9)
    ax.axhline(SHOWN, color=UNUSED, ls="--", lw=1)
    ax.set(xscale="log", xlabel="tokens counted", ylabel="utilization shown")
    share_axis(ax)
    ax.legend(loc="lower right")
    return figure


# 02 and 03: a cloud of points that moves, and a real quantizer that follows it

VALIDATIONS = 5  # the last ones, averaged: a single one depends too much on chance
ALIVE_2, DRIFT = 0.80, 1.25
ALIVE_3, RESETS = 0.90, 85
SEED = Slider("seed", "seed", 0, 0, 9, 1, "of all draws", "seed of the points and of the resets")


def drift() -> Demo:
    """Lesson 02: drift of the encoder against decay, without a reset."""
    return Demo(
        [
            Slider(
                "drift",
                "encoder drift",
                1.0,
                0.0,
                3.0,
                0.05,
                "% of radius a step",
                help="how far the cloud of encoder outputs moves in a step",
            ),
            Slider(
                "decay",
                "decay",
                0.9,
                0.0,
                0.99,
                0.01,
                "of the old",
                help="weight of the past in the moving averages",
            ),
            SEED,
        ],
        lambda **values: run(Setting(**values), 100),
        _draw_world,
        lambda w: (
            f"Drift {w.setting.drift:g} %, decay {w.setting.decay:g}, no reset: "
            f"{percent(alive(w))} of {w.setting.codebook_size} codes are in use at the end."
        ),
        target=f"{100 * ALIVE_2:.0f} % in use at a drift of {DRIFT:g} % or more",
        reached=lambda w: alive(w) >= ALIVE_2 and w.setting.drift >= DRIFT,
    )


def resets() -> Demo:
    """Lesson 03: threshold, interval and donors of a reset while the encoder drifts."""
    donors = {
        "most used code": "most_used",
        "eight most used": "top",
        "whole batch": "batch",
        "by long-run use": "usage",
    }
    return Demo(
        [
            Slider(
                "threshold",
                "threshold",
                1.0,
                0.0,
                8.0,
                0.1,
                "hits a step",
                help="a code with a smaller count is dead",
            ),
            Slider("every", "reset every", 1, 1, 30, 1, "steps", help="steps between resets"),
            Choice(
                "donors",
                "donors",
                "most_used",
                donors,
                help="whose outputs dead codes are moved to",
            ),
            SEED,
        ],
        lambda **values: run(Setting(drift=1.0, **values), 150),
        _draw_world,
        lambda w: (
            f"Threshold {w.setting.threshold:g}, every {w.setting.every} step(s), donors "
            f"{w.setting.donors}: {percent(alive(w))} in use at the end, for {w.resets} resets of "
            f"{w.setting.codebook_size} codes."
        ),
        target=f"keep {100 * ALIVE_3:.0f} % in use with at most {RESETS} resets",
        reached=lambda w: alive(w) >= ALIVE_3 and w.resets <= RESETS,
    )


def alive(world: World) -> float:
    """Utilization on other points, averaged over the last validations."""
    rows = [row for row in world.rows if row["step"] % 10 == 0]
    return float(np.mean([row["val"] for row in rows[-VALIDATIONS:]]))


def _draw_world(world: World) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.5), width_ratios=(1, 1.2))
    stills.picture(left, world)
    left.set_title(f"step {world.step_number}", fontsize=11)
    _draw_rows(right, pd.DataFrame(world.rows), world.setting.codebook_size)
    return figure


def _draw_rows(ax: Axes, rows: pd.DataFrame, codebook_size: int) -> None:
    ax.plot(rows["step"], rows["utilization"], color=USED, lw=1, alpha=0.5, label="one step")
    ax.plot(rows["step"], rows["val"], color=USED, lw=2, label="validation")
    resets = rows["resets"] / codebook_size  # lines: bars would take most of the drawing's time
    ax.vlines(rows["step"], 0, resets, color=BLUE, lw=1.5, label="reset")
    ax.set(xlabel="step", ylabel="share of the codes")
    share_axis(ax)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)


# 04: when to stop and compare

MEASURES = {
    "reconstruction error": ("recon_loss", -1),
    "utilization": ("utilization", +1),
    "perplexity": ("perplexity", +1),
}


class Stop(NamedTuple):
    step: int
    measure: str
    ratio: pd.DataFrame  #: one row a validation, one column a seed: after over before

    @property
    def gain(self) -> pd.DataFrame:
        """How much better the second arm is, as a share, in the shape of ``ratio``."""
        _, sign = MEASURES[self.measure]
        return sign * (self.ratio - 1)

    @property
    def best(self) -> int:
        """The validation at which it looks best, in the mean over seeds."""
        return int(self.gain.mean(axis=1).idxmax())


def stopping(table: pd.DataFrame, before: str, after: str) -> Demo:
    """Lesson 04: two arms compared at one of their validations.

    ``table``: from `experiments.history_table`, with both arms on the same seeds.
    """
    val = table[table["split"] == "val"]
    steps = sorted(val["step"].unique())
    apart = int(np.median(np.diff(steps))) if len(steps) > 1 else 1  # the last may be nearer

    def compute(step: int, measure: str) -> Stop:
        column, _ = MEASURES[measure]
        of = {
            a: val[val["arm"] == a].pivot(index="step", columns="seed", values=column)
            for a in (before, after)
        }
        nearest = min(steps, key=lambda s: abs(s - step))
        return Stop(int(nearest), measure, of[after] / of[before])

    return Demo(
        [
            Slider(
                "step",
                "compare at",
                int(steps[-1]),
                int(steps[0]),
                int(steps[-1]),
                apart,
                "training step",
                help="the validation at which both arms are read",
            ),
            Choice(
                "measure",
                "measure",
                "utilization",
                {m: m for m in MEASURES},
                help="what is compared",
            ),
        ],
        compute,
        _draw_stop,
        lambda s: (
            f"At step {s.step}, {after} has {s.ratio.loc[s.step].mean():.2f} x the "
            f"{s.measure} of {before}, and is better on {(s.gain.loc[s.step] > 0).sum()} of "
            f"{s.ratio.shape[1]} seed(s)."
        ),
        target=f"the step at which {after} looks best by its reconstruction error",
        reached=lambda s: s.measure == "reconstruction error" and s.step == s.best,
    )


def _draw_stop(s: Stop) -> Figure:
    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    for seed in s.ratio:
        ax.plot(s.ratio.index, s.ratio[seed], "o-", color=BLUE, alpha=0.6, ms=4)
    ax.plot(s.ratio.index, s.ratio.mean(axis=1), color=INK, lw=2, label="mean")
    ax.axhline(1, color=INK, ls=":", lw=1)
    ax.axvline(s.step, color=USED, lw=2)
    better = "lower" if MEASURES[s.measure][1] < 0 else "higher"
    ax.set(xlabel="training step", ylabel="after / before")
    ax.set_title(f"{s.measure}, one line a seed; {better} is better", fontsize=11)
    ax.legend(loc="best", fontsize=9)
    return figure


# 05: what a reset allows, from N, K and decay

ROOM, LIFE = 1.0, 20  # the target: share of the codebook with room, steps without a hit
TARGET_TOKENS, TARGET_CODES, TARGET_DECAY = 1200, 4096, 0.9


class Limits(NamedTuple):
    reset: DeadCodeReset
    tokens: int
    codes: int
    decay: float

    @property
    def hits(self) -> tuple[float, float]:
        """(threshold, refill) in hits a step."""
        return self.reset.limits(self.codes, self.tokens)

    @property
    def ceiling(self) -> float:
        return self.reset.ceiling(self.codes, self.tokens)

    @property
    def grace(self) -> float:
        return self.reset.grace(self.decay)


def calculator() -> Demo:
    """Lesson 05: N, K and decay in; threshold, ceiling, grace and refill out."""

    def compute(tokens, codes, decay, threshold, unit, refill) -> Limits:
        relative = unit == "shares"
        share = 1.0 if relative else tokens / codes
        start = {"guide": None, "share": share}[refill]
        return Limits(DeadCodeReset(threshold, relative, refill=start), tokens, codes, decay)

    return Demo(
        [
            Slider(
                "tokens", "N", 6272, 1, 100_000, 1, "tokens a step", "tokens of one training step"
            ),
            Slider("codes", "K", 512, 2, 2**16, 1, "codes", "size of the codebook"),
            Slider(
                "decay", "decay", 0.9, 0.0, 0.999, 0.001, "of the old", "weight of the past counts"
            ),
            Slider(
                "threshold",
                "threshold",
                1.0,
                0.001,
                100,
                0.005,
                "of the unit below",
                "a code with a smaller count is dead",
                log=True,
            ),
            Choice(
                "unit",
                "unit",
                "hits",
                {"hits a step": "hits", "shares of N/K": "shares"},
                help="what the threshold counts",
            ),
            Choice(
                "refill",
                "refill",
                "guide",
                {"threshold + 1": "guide", "one share, N/K": "share"},
                help="the count that a reset code starts with: threshold + 1 in the unit of the "
                "threshold, or N/K; it must be above the threshold",
            ),
        ],
        compute,
        _draw_limits,
        _say_limits,
        target=f"from N = {TARGET_TOKENS:,} tokens and K = {TARGET_CODES:,} codes at decay "
        f"{TARGET_DECAY:g}: room for all codes, and {LIFE} steps of grace or more",
        reached=lambda s: (
            (s.tokens, s.codes, s.decay) == (TARGET_TOKENS, TARGET_CODES, TARGET_DECAY)
            and s.ceiling >= ROOM
            and s.grace >= LIFE
        ),
    )


def _say_limits(s: Limits) -> str:
    threshold, refill = s.hits
    unit = f"of N/K, {threshold:.3g} hits a step," if s.reset.relative else "hits a step"
    return (
        f"N {s.tokens:,}, K {s.codes:,}, so N/K is {s.tokens / s.codes:.3g}; decay {s.decay:g}. A "
        f"threshold of {s.reset.threshold:g} {unit} leaves room for {percent(s.ceiling)} of the "
        f"codes. A reset code starts at {refill:.3g} hits and "
        f"lives for {s.grace:.0f} step(s) without one."
    )


def _draw_limits(s: Limits) -> Figure:
    threshold, refill = s.hits
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
    share = s.tokens / s.codes
    at = np.geomspace(min(share, threshold) / 10, max(share, threshold) * 10, 200)
    left.plot(at, np.minimum(1, share / at), color=BLUE, lw=2)
    left.axvline(share, color=INK, ls=":", lw=1, label="uniform share N/K")
    left.plot(threshold, s.ceiling, "o", color=USED, ms=9, label="threshold")
    left.set(xscale="log", xlabel="threshold (hits a step)", ylabel="codes with room")
    share_axis(left)
    left.legend(loc="lower left", fontsize=9)
    steps = np.arange(min(s.grace, 10**4) + 4)
    right.plot(steps, refill * s.decay**steps, ".-", color=BLUE, ms=5, label="a reset code")
    right.axhline(threshold, color=USED, ls="--", lw=1, label="threshold")
    right.axvline(s.grace, color=INK, ls=":", lw=1, label="grace")
    right.set(xlabel="steps without a hit", ylabel="count (hits a step)", ylim=(0, 1.08 * refill))
    right.legend(loc="upper right", fontsize=9)
    return figure


# 06: who is on the front


class Chosen(NamedTuple):
    bed: str
    x: str
    y: str
    table: pd.DataFrame  #: the runs on this bed
    front: list[str]


def front(table: pd.DataFrame, acts: Mapping[str, str], alike: Mapping[str, str]) -> Demo:
    """Lesson 06: a bed and two measures, and the arms that no other beats in both.

    ``table``: columns ``bed``, ``arm``, ``seed`` and measures of `fronts.MEASURES`. ``acts``:
    {arm: what it acts on}. ``alike``: {a measure: one that says the same}, not to be paired.
    """
    measures = {m.label: m.column for m in fronts.MEASURES.values() if m.column in table}
    beds = list(dict.fromkeys(table["bed"]))

    def compute(bed: str, x: str, y: str) -> Chosen:
        rows = table[table["bed"] == bed]
        means = rows.groupby("arm", sort=False)[list(dict.fromkeys([x, y]))].mean()
        return Chosen(bed, x, y, rows, fronts.front(means, x, y))

    def fair(c: Chosen) -> bool:
        return c.x != c.y and alike.get(c.x) != c.y and alike.get(c.y) != c.x

    return Demo(
        [
            Choice("bed", "bed", beds[0], {b: b for b in beds}, help="where the runs were made"),
            Choice("x", "across", "perplexity", measures, help="a measure"),
            Choice("y", "upward", "error", measures, help="another measure"),
        ],
        compute,
        lambda c: pareto(c.table, c.x, c.y, acts),
        lambda c: (
            f"By {fronts.MEASURES[c.x].label} and {fronts.MEASURES[c.y].label} on the bed "
            f"{c.bed!r}, {len(c.front)} of {c.table['arm'].nunique()} arms are on the front: "
            f"{', '.join(c.front)}."
        ),
        target="two measures that do not say the same, by which one arm alone is on the front",
        reached=lambda c: len(c.front) == 1 and fair(c),
    )


# 08: what each column of a log decides

GROUPS = {
    "usage": ("perplexity, top code", ("perplexity", "top_code_ratio", "window_tokens")),
    "resets": ("resets", ("resets", "re_resets", "premature", "survived")),
    "outputs": ("encoder outputs", ("encoder_similarity", "encoder_std")),
    "drift": ("encoder drift", ("drift",)),
    "loss": ("losses", ("recon_loss", "commit_loss", "cosine_error")),
    "codes": ("lengths, duplicates", ("duplicates", "longest_code")),
}
CAUSES, FURTHER = {"encoder-drift", "reset-never-fires"}, 2
MARKS = {
    "critical": "X",
    "warning": "^",
    "note": "s",
    "clear": "o",
    "unknown": "$?$",
    "not applicable": "_",
}


class Reading(NamedTuple):
    given: tuple[str, ...]  #: groups of columns beside the first three
    every: int
    diagnosis: Diagnosis


def columns(history: pd.DataFrame, codebook_size: int) -> Demo:
    """Lesson 08: columns and rows taken out of a log, and what can still be diagnosed.

    ``history``: of a run, with all of its columns.
    """

    def compute(every: int, **switches: bool) -> Reading:
        given = tuple(name for name, on in switches.items() if on)
        wanted = [c for name in given for c in GROUPS[name][1] if c in history]
        kept = history[(history["split"] == "val") | (history["step"] % every == 0)]
        found = diagnose(
            kept[["step", "split", "used_codes", *wanted]],
            codebook_size=codebook_size,
            title="the log",
        )
        return Reading(given, every, found)

    return Demo(
        [
            *(
                Switch(name, label, False, help="whether to log " + ", ".join(cols))
                for name, (label, cols) in GROUPS.items()
            ),
            Slider("every", "a row every", 1, 1, 50, 1, "steps", help="how often you log"),
        ],
        compute,
        _draw_reading,
        _say_reading,
        target=f"find {' and '.join(sorted(CAUSES))} with {FURTHER} further groups of columns",
        reached=lambda r: r.diagnosis.ids() >= CAUSES and len(r.given) <= FURTHER,
    )


def _say_reading(r: Reading) -> str:
    given = ", ".join(GROUPS[name][0] for name in r.given) or "nothing"
    found = ", ".join(finding.id for finding in r.diagnosis.findings) or "nothing"
    return (
        f"Logged every {r.every} step(s), with {given} beside the three columns: found {found}; "
        f"{len(r.diagnosis.unknown)} questions stay open."
    )


def _draw_reading(r: Reading) -> Figure:
    answers: Mapping[str, str] = {a.id: a.severity for a in r.diagnosis.answers}
    names = sorted(answers)
    figure, ax = plt.subplots(figsize=(6.0, 0.24 * len(names) + 0.5))
    for y, name in enumerate(names):
        severity = answers[name]
        style = {"marker": MARKS[severity], "color": SEVERITIES[severity]}
        ax.plot(0, y, ms=9, ls="none", clip_on=False, **style)
        ax.text(0.4, y, severity, va="center", fontsize=9, color=INK)
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.set(xlim=(-0.4, 3), ylim=(len(names) - 0.5, -0.5), xticks=[])
    ax.spines[["bottom", "left"]].set_visible(False)
    ax.tick_params(length=0)
    return figure
