"""Exercises on remedies (notebook 06): a rival built, a front read, a bound computed."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional as F

from vqlib.lessons.checking import Case, Exercise
from vqlib.lessons.fronts import on_front

# a restart at the centres of a fresh k-means


def _restart(codebook, cluster_size, x, means, threshold, *, token=True, refill=True, wait=True):
    dead = (cluster_size < threshold).nonzero().flatten()
    if wait and len(dead) > len(means):
        return codebook, cluster_size
    dead = dead[: len(means)]
    centres = means[: len(dead)]
    nearest = x[(centres @ x.T).argmax(dim=1)]
    codebook[dead] = nearest if token else centres
    if refill:
        cluster_size[dead] = threshold + 1
    return codebook, cluster_size


def _crosswise(codebook, cluster_size, x, means, threshold):
    """Each token's nearest centre, where each centre's nearest token is asked for."""
    dead = (cluster_size < threshold).nonzero().flatten()
    if len(dead) <= len(means):
        codebook[dead] = x[(x @ means[: len(dead)].T).argmax(dim=1)[: len(dead)]]
        cluster_size[dead] = threshold + 1
    return codebook, cluster_size


def _restart_case(words: str, cluster_size: list[float], centres: int) -> Case:
    generator = torch.Generator().manual_seed(centres)
    codebook, x, means = (
        F.normalize(torch.randn(n, 3, generator=generator), dim=1) for n in (6, 20, centres)
    )
    return Case(words, (codebook, torch.tensor(cluster_size), x, means, 1.0))


RESTART = Exercise(
    "A restart at fresh centres:",
    _restart,
    {
        "A code should move to a token of the batch, the one nearest to the centre, not to the "
        "centre itself.": partial(_restart, token=False),
        "The counts stay below the threshold: at the next step the same codes are dead "
        "again.": partial(_restart, refill=False),
        "If more codes are dead than there are centres, all of them wait.": partial(
            _restart, wait=False
        ),
        "That looks for the centre nearest to each token; find the token nearest to each "
        "centre.": _crosswise,
    },
    cases=[
        _restart_case("two dead codes", [9.0, 0.2, 5.0, 4.0, 0.0, 2.0], centres=2),
        _restart_case("one dead code, and three centres", [9.0, 0.2, 5.0, 4.0, 3.0, 2.0], 3),
        _restart_case("a codebook without a dead code", [9.0, 2.0, 5.0, 4.0, 3.0, 2.0], 2),
        _restart_case("more dead codes than centres", [0.9, 0.2, 0.5, 4.0, 0.0, 0.1], 2),
    ],
)

# which arms are beaten by no other


def _front(perplexity, error, *, sign=-1) -> list[bool]:
    errors = [sign * e for e in error]
    return on_front(perplexity, errors).tolist()


def _best_in_one(perplexity, error) -> list[bool]:
    most, least = max(perplexity), min(error)
    return [p == most or e == least for p, e in zip(perplexity, error, strict=True)]


def _pairs(perplexity, error, beats) -> list[bool]:
    arms = list(zip(perplexity, error, strict=True))
    return [not any(beats(other, arm) for other in arms) for arm in arms]


def _strictly(other, arm) -> bool:
    return other[0] > arm[0] and other[1] < arm[1]


def _itself(other, arm) -> bool:
    return other[0] >= arm[0] and other[1] <= arm[1]


FRONT = Exercise(
    "The arms on the front:",
    _front,
    {
        "Less error is better: there the sign is reversed.": partial(_front, sign=1),
        "The best in one measure are on the front, but so are arms between them that nobody "
        "beats in both.": _best_in_one,
        "A tie in one measure does not save an arm that is worse in the other.": lambda p, e: (
            _pairs(p, e, _strictly)
        ),
        "An arm does not beat itself, nor its equal: it must be better in at least "
        "one.": lambda p, e: _pairs(p, e, _itself),
    },
    cases=[
        Case("five arms", ([13.0, 104.0, 94.0, 57.0, 43.0], [0.025, 0.022, 0.023, 0.026, 0.019])),
        Case("three arms, each better in one", ([10.0, 50.0, 90.0], [0.01, 0.02, 0.03])),
        Case("two arms with the same error", ([10.0, 50.0, 20.0, 5.0], [0.02, 0.02, 0.03, 0.01])),
        Case("two arms that are equal", ([50.0, 50.0, 20.0], [0.02, 0.02, 0.03])),
    ],
)

# how flat the use of codes can be at all

TOP = Exercise(
    "The least top code ratio:",
    0.03 * 128,
    {
        "That is the share itself. The ratio is over the average share, 1/K.": 0.03,
        "Even use is out of reach here: equal tokens cannot be told apart.": 1.0,
        "That is upside down: divide the share of the top code by the average share.": 1
        / (0.03 * 128),
        "Per cent: 3 % is 0.03.": 3.0 * 128,
    },
    tolerance=0.01,
)
