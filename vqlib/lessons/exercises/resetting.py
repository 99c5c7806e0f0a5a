"""Exercises on dead code reset (notebook 03): one that lives, and what a threshold allows."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch.nn import functional as F

from vqlib.lessons.checking import Case, Exercise
from vqlib.quantization.reset import DeadCodeReset


def _reset(codebook, cluster_size, x, indices, threshold, *, unit=True, refill=1.0, own=True):
    dead = (cluster_size < threshold).nonzero().flatten()
    if len(dead):
        most_used = torch.bincount(indices, minlength=len(codebook)).argmax()
        donors = x[indices == most_used] if own else x
        drawn = donors[torch.arange(len(dead)) % len(donors)]
        codebook[dead] = F.normalize(drawn, dim=-1) if unit else drawn
        if refill is not None:
            cluster_size[dead] = threshold + refill
    return codebook, cluster_size


def _reset_case(words: str, cluster_size: list[float], of_the_first: int) -> Case:
    """Six codes in the plane and eight encoder outputs, not of length 1."""
    angle = torch.arange(6) * math.pi / 3
    codebook = torch.stack([angle.cos(), angle.sin()], dim=1)
    indices = torch.tensor([0] * of_the_first + [2, 3, 2, 3, 2, 3, 2][: 8 - of_the_first])
    nudge = torch.linspace(0.5, 2.0, 8)[:, None]
    x = nudge * codebook[indices] + 0.1 * nudge.flip(0)
    return Case(words, (codebook, torch.tensor(cluster_size), x, indices, 1.0))


RESET = Exercise(
    "A reset that lives:",
    _reset,
    {
        "Two things are missing: look at the length of the new rows, and at what the next step "
        "finds in cluster_size.": partial(_reset, unit=False, refill=None),
        "The counts stay below the threshold: at the next step the same codes are dead "
        "again.": partial(_reset, refill=None),
        "The new rows do not have length 1: argmax would favour the long ones.": partial(
            _reset, unit=False
        ),
        "A count at the threshold is dead after one step without a hit: refill to threshold + "
        "1.": partial(_reset, refill=0.0),
        "Donors are only the outputs that chose the most used code, not the whole batch.": partial(
            _reset, own=False
        ),
    },
    cases=[
        _reset_case("two dead codes", [9.0, 0.2, 5.0, 4.0, 0.0, 2.0], of_the_first=5),
        _reset_case("a codebook without a dead code", [9.0, 2.0, 5.0, 4.0, 3.0, 2.0], 5),
        _reset_case("fewer donors than dead codes", [9.0, 0.2, 0.0, 0.4, 0.0, 0.9], 4),
        _reset_case("a codebook in which every code is dead", [0.9, 0.2, 0.5, 0.4, 0.0, 0.1], 5),
    ],
)

CEILING = Exercise(
    "The ceiling:",
    DeadCodeReset(2.0).ceiling(codebook_size=4096, tokens=1200),
    {
        "That is a number of codes: divide by K.": 1200 / 2,
        "That is N/K, the hits of a code in uniform use. Each code needs 2.": 1200 / 4096,
        "More hits for each code leave room for fewer codes: divide by the threshold.": (
            2 * 1200 / 4096
        ),
        "That is upside down: a share cannot be above 1.": 2 * 4096 / 1200,
        "That is a percentage. The question asks for a share.": 100 * 1200 / (2 * 4096),
    },
    tolerance=0.001,
)


def _grace(threshold: float, decay: float) -> float:
    return DeadCodeReset(threshold).grace(decay)


def _falls(threshold: float, decay: float, start: float) -> float:
    """Steps in which ``start`` falls to the threshold, not rounded."""
    if threshold == 0:
        return math.inf
    return math.log(start / threshold) / -math.log(decay) if decay else 0.0


GRACE = Exercise(
    "The grace of a reset code:",
    _grace,
    {
        "Steps are whole: find the first one after which the count is too low.": lambda t, d: (
            _falls(t, d, t + 1)
        ),
        "One too few: after that step the count has not yet fallen low enough.": lambda t, d: (
            math.floor(_falls(t, d, t + 1)) if t else math.inf
        ),
        "It starts at threshold + 1, not at 1.": lambda t, d: (
            max(0, math.floor(_falls(t, d, 1.0)) + 1) if t else math.inf
        ),
        "Nothing falls below a threshold of 0: the grace is infinite.": lambda t, d: (
            _grace(t, d) if t else ZeroDivisionError()
        ),
        "That is the half-life of the count; it ignores the threshold.": lambda t, d: (
            math.log(2) / -math.log(d)
        ),
    },
    cases=[
        Case("threshold 1, decay 0.9,", (1.0, 0.9)),
        Case("threshold 10, decay 0.9,", (10.0, 0.9)),
        Case("threshold 0.5, decay 0.99,", (0.5, 0.99)),
        Case("threshold 1, decay 0.5, where it meets the threshold exactly,", (1.0, 0.5)),
        Case("threshold 1, decay 0,", (1.0, 0.0)),
        Case("threshold 0", (0.0, 0.9)),
    ],
)
