"""Exercises on tuning (notebook 05): an interaction, a rule that travels, the cost of choosing."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit

from vqlib.lessons.checking import Case, Exercise
from vqlib.training.experiments import interval

# an interaction: a difference of differences


def _interaction(off, off_with, on, on_with):
    beside, alone = np.subtract(on_with, on), np.subtract(off_with, off)
    return interval(beside - alone)


def _beside_only(off, off_with, on, on_with):
    return interval(np.subtract(on_with, on))


def _against_nothing(off, off_with, on, on_with):
    return interval(np.subtract(on_with, off))


def _turned(off, off_with, on, on_with):
    return _interaction(on, on_with, off, off_with)


def _unpaired(off, off_with, on, on_with):
    mean, low, _ = _interaction(off, off_with, on, on_with)
    if math.isnan(low):
        return mean, math.nan, math.nan
    n = len(off)
    spread = math.sqrt(sum(np.var(arm, ddof=1) for arm in (off, off_with, on, on_with)))
    return _around(mean, spread, n)


def _narrow(off, off_with, on, on_with):
    """Only the seeds' spread beside the reset, as if the effect alone were known."""
    mean, low, _ = _interaction(off, off_with, on, on_with)
    if math.isnan(low):
        return mean, math.nan, math.nan
    return _around(mean, np.std(np.subtract(on_with, on), ddof=1), len(off))


def _around(mean, spread, n):
    half = stdtrit(n - 1, 0.975) * spread / math.sqrt(n)
    return mean, mean - half, mean + half


INTERACTION = Exercise(
    "The interaction with its interval:",
    _interaction,
    {
        "That is what the companion adds to the reset. Subtract what it does alone.": _beside_only,
        "That is what both do together, against neither.": _against_nothing,
        "The sign is reversed: subtract the effect alone from the effect beside the reset.": (
            _turned
        ),
        "Take the difference of differences seed by seed first: what the four runs of a seed share "
        "then cancels.": _unpaired,
        "The effect alone has a spread over seeds, too: subtract seed by seed, then take one "
        "interval.": _narrow,
    },
    cases=[
        Case(
            "five seeds on which the two work together",
            (
                [14.0, 18.0, 12.0, 16.0, 15.0],
                [19.0, 22.0, 18.0, 20.0, 21.0],
                [55.0, 60.0, 52.0, 57.0, 56.0],
                [70.0, 77.0, 65.0, 72.0, 70.0],
            ),
        ),
        Case(
            "two that simply add up",
            ([10.0, 50.0, 90.0], [15.0, 55.0, 95.0], [20.0, 61.0, 99.0], [25.0, 66.0, 104.0]),
        ),
        Case(
            "a companion that the reset makes superfluous",
            ([10.0, 12.0, 14.0], [40.0, 41.0, 46.0], [60.0, 62.0, 61.0], [60.0, 63.0, 60.0]),
        ),
        Case("one seed", ([14.0], [19.0], [55.0], [70.0])),
    ],
    tolerance=0.01,
)

# a rule that travels


def _limits(tokens, codes, decay, steps):
    threshold = 0.1 * tokens / codes
    return threshold, threshold / decay**steps


LIMITS = Exercise(
    "Threshold and refill in hits:",
    _limits,
    {
        "That is a tenth. Of what? Multiply by the uniform share N/K.": lambda n, k, d, s: (
            0.1,
            0.1 / d**s,
        ),
        "N/K is upside down: hits for each code.": lambda n, k, d, s: _limits(k, n, d, s),
        "A count loses a share of itself in each step, so the refill is threshold / decay ** "
        "steps.": lambda n, k, d, s: (0.1 * n / k, 0.1 * n / k * (1 + (1 - d) * s)),
        "That is the guide's refill. It decides the grace; here the grace is given.": (
            lambda n, k, d, s: (0.1 * n / k, 0.1 * n / k + 1)
        ),
        "The refill must be above the threshold: divide by decay ** steps.": lambda n, k, d, s: (
            0.1 * n / k,
            0.1 * n / k * d**s,
        ),
    },
    cases=[
        Case("6,272 tokens, 512 codes, decay 0.9, 22 steps,", (6272, 512, 0.9, 22)),
        Case("1,200 tokens, 4,096 codes, decay 0.9, 20 steps,", (1200, 4096, 0.9, 20)),
        Case("1,568 tokens, 128 codes, decay 0.5, 3 steps,", (1568, 128, 0.5, 3)),
    ],
)

# what choosing costs


def _regret(scores):
    there, here = _halves(scores)
    best = there.argmax()
    return float(there[best] - here[best])


def _halves(scores):
    scores = np.asarray(scores, dtype=float)
    half = len(scores) // 2
    return scores[:half].mean(axis=0), scores[half:].mean(axis=0)


def _chosen_twice(scores):
    there, here = _halves(scores)
    return float(there.max() - here.max())


def _chosen_by_all(scores):
    there, here = _halves(scores)
    best = np.mean(scores, axis=0).argmax()
    return float(there[best] - here[best])


def _best_single(scores):
    scores = np.asarray(scores, dtype=float)
    there, here = _halves(scores)
    best = scores[: len(scores) // 2].max(axis=0).argmax()
    return float(there[best] - here[best])


REGRET = Exercise(
    "The regret of choosing:",
    _regret,
    {
        "That chooses anew on the second half. Keep the setting that the first half chose.": (
            _chosen_twice
        ),
        "That chooses with all seeds, so none is left to confirm.": _chosen_by_all,
        "Choose by the mean over the seeds, not by the luckiest of them.": _best_single,
        "The sign is reversed: choosing minus confirming.": lambda scores: -_regret(scores),
    },
    cases=[
        Case(
            "four seeds, three settings",
            ([[30.0, 39.0, 20.0], [32.0, 31.0, 28.0], [33.0, 25.0, 39.0], [31.0, 29.0, 41.0]],),
        ),
        Case(
            "a lucky run in the first half",
            ([[10.0, 2.0, 1.0], [10.0, 12.0, 13.0], [9.0, 20.0, 3.0], [9.0, 22.0, 3.0]],),
        ),
        Case("one setting only", ([[5.0], [7.0], [5.0], [7.0]],)),
    ],
)
