"""Exercises on judging: a claim by its interval, two arms by their pairs, a codebook by its log."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from scipy.special import stdtrit

from vqlib.diagnosis.shares import LOW
from vqlib.diagnosis.training_rules import ALIKE
from vqlib.lessons import effects
from vqlib.lessons.checking import Case, Exercise
from vqlib.quantization import usage
from vqlib.training import experiments

# 02: a rule for claims


def _unsigned(low: float, high: float, sign: int) -> str:
    return effects.verdict(low, high, 1)


def _any_effect(low: float, high: float, sign: int) -> str:
    return "supported" if low > 0 or high < 0 else "refuted"


def _support_first(low: float, high: float, sign: int) -> str:
    worst, best = sorted((sign * low, sign * high))
    if worst > 0:
        return "supported"
    return "refuted" if best < effects.MARGIN else "undecided"


def _no_seeds(low: float, high: float, sign: int) -> str:
    return "refuted" if math.isnan(low) else effects.verdict(low, high, sign)


VERDICT = Exercise(
    "The verdict on a claim:",
    effects.verdict,
    {
        "The sign is ignored: a claim that predicts a fall is supported by a fall.": _unsigned,
        "An effect that is certain but smaller than 5 points is too small for the claim: test for "
        "refuted first.": _support_first,
        "NaN is neither above nor below anything: test for it first.": _no_seeds,
        "That asks whether there is an effect; the rule asks about its direction, and about 5 "
        "points.": _any_effect,
    },
    cases=[
        Case("an interval from 12 to 30, claim of a rise,", (12.0, 30.0, +1)),
        Case("an interval from -3 to 4, claim of a rise,", (-3.0, 4.0, +1)),
        Case("an interval from -2 to 20, claim of a rise,", (-2.0, 20.0, +1)),
        Case("an interval from -30 to -12, claim of a fall,", (-30.0, -12.0, -1)),
        Case("an interval from 12 to 30, claim of a fall,", (12.0, 30.0, -1)),
        Case("an interval from 1 to 4, claim of a rise,", (1.0, 4.0, +1)),
        Case("one seed, so no interval (NaN),", (math.nan, math.nan, +1)),
    ],
)

# 04: pairs, and windows


def _paired(before: list[float], after: list[float]) -> tuple[float, float, float]:
    return experiments.interval(np.subtract(after, before))


def _around(before, after, *, t=None, ddof=1, root=True, spread=None) -> tuple:
    """The paired interval, made wrong on purpose."""
    change, n = np.subtract(after, before), len(before)
    if n < 2:
        return float(change[0]), math.nan, math.nan
    t = t or stdtrit(n - 1, 0.975)
    spread = change.std(ddof=ddof) if spread is None else spread
    half = t * spread / (math.sqrt(n) if root else 1)
    return float(change.mean()), float(change.mean() - half), float(change.mean() + half)


def _unpaired(before, after) -> tuple:
    if len(before) < 2:
        return _around(before, after)
    return _around(before, after, spread=math.hypot(np.std(before, ddof=1), np.std(after, ddof=1)))


def _backwards(before, after) -> tuple:
    return _paired(after, before)


def _sure_of_one(before, after) -> tuple:
    mean, *_ = found = _paired(before, after)
    return (mean, mean, mean) if len(before) < 2 else found


PAIRED = Exercise(
    "A paired difference with its interval:",
    _paired,
    {
        "That is before minus after: the sign is reversed.": _backwards,
        "Subtract seed by seed first: what two runs with one seed share then cancels.": _unpaired,
        "With a handful of seeds 1.96 is too small: use Student's t.": partial(_around, t=1.96),
        "Divide by n - 1 for the standard deviation (ddof=1).": partial(_around, ddof=0),
        "Divide by the root of n: the interval is for the mean, not for one seed.": partial(
            _around, root=False
        ),
        "One seed gives no interval: its ends are NaN.": _sure_of_one,
    },
    cases=[
        Case("five seeds", ([14.0, 18.0, 12.0, 16.0, 15.0], [88.0, 91.0, 87.0, 90.0, 88.0])),
        Case(
            "three seeds that differ far more than the arms do",
            ([10.0, 50.0, 90.0], [12.0, 51.0, 93.0]),
        ),
        Case("two arms that are equal", ([20.0, 30.0], [20.0, 30.0])),
        Case("one seed", ([14.0], [88.0])),
    ],
    tolerance=0.01,
)

GAP = Exercise(
    "The gap between windows of different size:",
    100 * (0.90 / 0.95 - 0.92 / 1.00),
    {
        "That compares the two windows as they are: divide each by its own ceiling first.": -2.0,
        "The gap is training minus validation: the sign is reversed.": 100 * (0.92 - 0.90 / 0.95),
        "Divide by the ceiling: a window that cannot show every code makes the reading too low.": (
            100 * (0.90 * 0.95 - 0.92)
        ),
        "The gap should be in points, not a share.": 0.90 / 0.95 - 0.92,
    },
    tolerance=0.1,
)

# 08: which question first, and a threshold with a unit


def _reading(
    window_tokens, codebook_size, utilization, similarity, resets, *, window=3, full=None
) -> str:
    if window_tokens < window * codebook_size:
        return "window-too-small"
    full = full or usage.uniform_utilization(codebook_size, window_tokens)
    if utilization >= LOW * full:
        return "healthy"
    if similarity > ALIKE:
        return "encoder-collapse"
    return "reset-never-fires" if resets == 0 else "look at the reset"


def _use_only(window_tokens, codebook_size, utilization, similarity, resets) -> str:
    return "healthy" if utilization >= LOW else "reset-never-fires"


def _reset_first(window_tokens, codebook_size, utilization, similarity, resets) -> str:
    if resets == 0:
        similarity = 0.0
    return _reading(window_tokens, codebook_size, utilization, similarity, resets)


READING = Exercise(
    "The first finding that applies:",
    _reading,
    {
        "A window needs 3 K tokens, not K.": partial(_reading, window=1),
        "Ask about the window first: a small one proves nothing.": partial(_reading, window=0),
        "Compare utilization with what uniform use shows in this window, not with 1.": partial(
            _reading, full=1.0
        ),
        "Ask about the encoder before the reset: no reset can split equal outputs.": _reset_first,
        "One look at utilization is not enough: ask the other questions, in the given "
        "order.": _use_only,
    },
    cases=[
        Case("a collapse without a reset", (30_000, 512, 0.12, 0.6, 0)),
        Case("a codebook in use", (30_000, 512, 0.80, 0.6, 0)),
        Case("a collapse in spite of a reset", (30_000, 512, 0.12, 0.6, 900)),
        Case("an encoder whose outputs are all alike", (30_000, 512, 0.01, 0.99, 0)),
        Case("a window of 1,600 tokens for 8,192 codes", (1_600, 8_192, 0.17, 0.6, 0)),
        Case("a window of 2 K tokens", (1_024, 512, 0.40, 0.6, 0)),
        Case(
            "48 % in use in a window in which uniform use would show 95 %",
            (1_536, 512, 0.48, 0.6, 0),
        ),
    ],
)

THRESHOLD = Exercise(
    "The threshold in hits a step:",
    0.1 * 1600 / 8192,
    {
        "That is a multiple of the share. The question asks for hits a step.": 0.1,
        "That is the uniform share itself: codes a little below the average would be dead.": 1600
        / 8192,
        "That is upside down: the share is N/K, the hits for each code.": 0.1 * 8192 / 1600,
        "Divide by K: a threshold applies to one code.": 0.1 * 1600,
    },
    tolerance=0.0005,
)
