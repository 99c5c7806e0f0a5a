"""Exercises of the playground (notebook 07): counts that fade, thresholds that travel."""

from __future__ import annotations

import math

from vqlib.lessons.checking import Case, Exercise

SHARE, DECAY = 12.25, 0.9  # hits a step of a code in even use, as in the presets

FADING = Exercise(
    "Steps until the reset notices:",
    math.floor(math.log(SHARE) / -math.log(DECAY)) + 1,
    {
        "A step is a whole number: find the first one after which the count is below 1.": (
            math.log(SHARE) / -math.log(DECAY)
        ),
        "One too few: after that step the count is still above 1.": (
            math.floor(math.log(SHARE) / -math.log(DECAY))
        ),
        "That is the count after one step. The question asks for a number of steps.": SHARE * DECAY,
        "That is the half-life of the count.": math.log(2) / -math.log(DECAY),
        "That is the grace of a code that was just reset: this one starts at N/K.": (
            math.floor(math.log(2) / -math.log(DECAY)) + 1
        ),
        "The count is multiplied by the decay in each step; nothing is subtracted.": (
            math.ceil((SHARE - 1) / (1 - DECAY))
        ),
    },
    tolerance=0.01,
)


def _carried(threshold, tokens, codes, new_tokens, new_codes):
    return threshold * (new_tokens / new_codes) / (tokens / codes)


CARRIED = Exercise(
    "A threshold carried over:",
    _carried,
    {
        "Unchanged, the threshold is a different share of N/K.": lambda t, n, k, n2, k2: t,
        "That is upside down: if N/K falls, the threshold has to fall.": (
            lambda t, n, k, n2, k2: _carried(t, n2, k2, n, k)
        ),
        "K has changed as well as N.": lambda t, n, k, n2, k2: t * n2 / n,
        "N has changed as well as K.": lambda t, n, k, n2, k2: t * k / k2,
    },
    cases=[
        Case("twice the tokens and half the codes,", (1.0, 784, 64, 1568, 32)),
        Case("6,272 tokens on 512 codes to 1,024 on 8,192,", (1.0, 6272, 512, 1024, 8192)),
        Case("the same N and K,", (0.5, 784, 64, 784, 64)),
        Case("a reset that is off,", (0.0, 784, 64, 100, 10)),
    ],
)
