"""Exercises on counts: how much of a codebook is in use, in which window, and for how long."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqlib.lessons.checking import Case, Exercise
from vqlib.quantization import usage

# 01: a histogram, and its window


def _use(counts: Tensor) -> tuple[float, float]:
    return usage.utilization(counts), usage.perplexity(counts)


USE = Exercise(
    "Utilization and perplexity from counts:",
    _use,
    {
        "Utilization divides by all K codes, the unused ones too.": lambda c: (1.0, _use(c)[1]),
        "You count codes: divide by K, and take the exponential of the entropy.": lambda c: (
            usage.used_codes(c),
            usage.used_codes(c),
        ),
        "That is the entropy: perplexity is its exponential.": lambda c: (
            _use(c)[0],
            usage.entropy(c),
        ),
        "0 x log 0 is NaN in floating point: leave the unused codes out of the sum.": lambda c: (
            _use(c)[0],
            math.nan if (c == 0).any() else _use(c)[1],
        ),
        "A logarithm to base 2 needs 2 ** entropy, not exp.": lambda c: (
            _use(c)[0],
            math.exp(usage.entropy(c) / math.log(2)),
        ),
        "The entropy is of shares: divide the counts by their sum.": lambda c: (
            _use(c)[0],
            float((-c * c.clamp(min=1e-30).log()).sum().exp()),
        ),
        "Utilization should be a share, not a percentage.": lambda c: (
            100 * _use(c)[0],
            _use(c)[1],
        ),
    },
    cases=[
        Case("two of four codes, used equally,", (torch.tensor([8.0, 0.0, 8.0, 0.0]),)),
        Case("four codes used equally", (torch.full((4,), 5.0),)),
        Case("uneven use", (torch.tensor([90.0, 5.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0]),)),
        Case("a codebook whose first code takes all", (torch.tensor([7.0, 0, 0, 0, 0]),)),
        Case("a codebook of one code", (torch.tensor([3.0]),)),
    ],
    tolerance=1e-3,
)

WINDOW = Exercise(
    "Utilization of perfectly uniform use:",
    usage.uniform_utilization(1024, 1600),
    {
        "That is the number of tokens for each code, N/K. A utilization cannot be above 1.": 1600
        / 1024,
        "Even with N above K, not every code is hit: some get two tokens, others none.": 1.0,
        "That is the share of codes that all tokens miss. You want the others.": (1 - 1 / 1024)
        ** 1600,
        "That is upside down: K/N.": 1024 / 1600,
    },
    tolerance=0.005,
)

# 02: the moving average of counts


def _count_after(start: float, hits: list[float], decay: float) -> float:
    for hit in hits:
        start = decay * start + (1 - decay) * hit
    return start


def _swapped(start: float, hits: list[float], decay: float) -> float:
    return _count_after(start, hits, 1 - decay)


def _unweighted(start: float, hits: list[float], decay: float) -> float:
    for hit in hits:
        start = decay * start + hit
    return start


COUNT = Exercise(
    "A count after some steps:",
    _count_after,
    {
        "The weights are swapped: decay belongs to the past.": _swapped,
        "Hits enter with weight 1 - decay, not with weight 1.": _unweighted,
        "The count only decays: its hits are missing.": lambda start, hits, decay: (
            start * decay ** len(hits)
        ),
        "Each step starts from the count of the step before, not from the first.": lambda s, h, d: (
            d * s + (1 - d) * h[-1] if h else s
        ),
        "Without any step the count stays as it was.": lambda s, h, d: (
            _count_after(s, h, d) if h else 0.0
        ),
    },
    cases=[
        Case("one step of 4 hits", (10.0, [4.0], 0.9)),
        Case("three steps without a hit", (10.0, [0.0, 0.0, 0.0], 0.9)),
        Case("ten steps of 4 hits, from 0,", (0.0, [4.0] * 10, 0.9)),
        Case("uneven hits", (2.0, [9.0, 0.0, 1.0], 0.75)),
        Case("decay 0", (5.0, [3.0, 7.0], 0.0)),
        Case("no step at all", (5.0, [], 0.9)),
    ],
)

MEMORY = Exercise(
    "Steps until a tenth is left:",
    math.log(10) / -math.log(0.99),
    {
        "That is the half-life: half is left, not a tenth.": math.log(2) / -math.log(0.99),
        "That is the horizon 1 / (1 - decay), after which more than a third is left.": 100.0,
        "In each step a count falls by one hundredth of its current value, not of its start.": 90.0,
        "The sign is wrong: ln 0.99 is negative.": math.log(10) / math.log(0.99),
        "After that many steps nine tenths are left.": math.log(0.9) / math.log(0.99),
    },
    tolerance=1.5,
)
