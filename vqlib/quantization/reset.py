"""Dead code reset: who is dead, where a dead code moves, what its count becomes.

A threshold has a unit: hits a step. The counts of K codes can only add up to the N
tokens of a step, so at most N / threshold codes can stay above an absolute threshold.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from vqlib.quantization.distributed import (
    Shard,
    many,
    of_each_rank,
    picked,
    process,
    same_draws,
    shard,
    sum_over_ranks,
)
from vqlib.quantization.ranges import Range, SettingsError, check_fields

logger = logging.getLogger("vqlib")

Donors = Literal["most_used", "top", "batch", "usage"]
FLAGS = {
    "threshold": "dead_code_threshold",
    "relative": "reset_relative",
    "donors": "reset_donors",
    "every": "reset_interval",
    "refill": "reset_refill",
    "distinct": "reset_distinct",
}
"""{argument of `DeadCodeReset`, and name of its slider: the flag of a training}"""


class Reset(NamedTuple):
    """What one step reset. ``str()`` gives the log line."""

    codes: Tensor  #: (n,) int64, the codes that were dead
    donors: (
        Tensor  #: (n,) int64, the token that each was moved to, of the flattened batch of all ranks
    )
    threshold: float  #: hits a step below which a code was dead

    def __str__(self) -> str:
        return f"Reset {len(self.codes)} dead codes (cluster_size < {self.threshold})"


@dataclass(frozen=True)
class DeadCodeReset:
    """After an EMA update, move dead codes onto encoder outputs of the same batch.

    The defaults are the guide's rule: a code is dead below ``threshold`` hits a step;
    it moves to an output that was assigned to the most used code, and its count
    becomes ``threshold + 1``, so that it is not dead again at the next step.

    Args:
        threshold: dead below this EMA count. 0 turns the reset off. (The guide also
            calls 0.0 "conservative: only codes that are never used". That cannot
            happen: an EMA of counts decays towards 0 without reaching it, and no count
            is below 0, so ``cluster_size < 0.0`` is true of no code, ever.)
        relative: ``threshold`` and ``refill`` are multiples of the uniform share N/K,
            so that one setting fits other batch and codebook sizes.
        donors: whose outputs replace a dead code. "most_used": of the code most used in
            this batch. "top": of the ``top`` most used. "batch": any, uniformly.
            "usage": of a code drawn in proportion to its long-run ``cluster_size``.
        every: act only on each n-th training step.
        refill: the count a reset code starts with; None: ``threshold + 1``.
        distinct: never give two codes the same vector while different ones are left,
            first in the donors' pool, then in the rest of the batch. (Of two equal
            codes argmax finds only one; the other is dead from birth.)
        top: how many codes donate if ``donors="top"``.

    Raises:
        SettingsError: a ValueError: a field outside its range.
    """

    threshold: Annotated[float, Range(0)] = 1.0
    relative: bool = False
    donors: Donors = "most_used"
    every: Annotated[int, Range(1)] = 1
    refill: Annotated[float | None, Range(0)] = None
    distinct: bool = False
    top: Annotated[int, Range(1)] = 8

    @classmethod
    def of(cls, settings: Any, names: Mapping[str, str] | None = None) -> DeadCodeReset:
        """The reset that ``settings`` ask for by their attributes.

        Args:
            names: {argument: attribute}, such as `FLAGS`; None: they are called the same.

        Raises SettingsError, about the attribute.
        """
        names = names or {argument: argument for argument in FLAGS}
        try:
            return cls(**{name: getattr(settings, names[name]) for name in FLAGS})
        except SettingsError as error:
            field = names[error.field]
            text = str(error) if field == error.field else f"{field}: {error}"
            raise SettingsError(text, field) from None

    def __post_init__(self):
        check_fields(self)
        if self.refill is not None and self.refill <= self.threshold:
            raise SettingsError(
                f"refill must be above threshold ({self.threshold}), or a reset code is dead "
                f"again at once; got {self.refill}",
                "refill",
            )

    def limits(self, codebook_size: int, tokens: int) -> tuple[float, float]:
        """(threshold, refill) in hits a step, for N = ``tokens`` a step."""
        unit = tokens / codebook_size if self.relative else 1.0
        refill = self.threshold + 1 if self.refill is None else self.refill
        return self.threshold * unit, refill * unit

    def ceiling(self, codebook_size: int, tokens: int) -> float:
        """Largest share of the codebook that can stay at or above the threshold.

        min(1, N / (threshold K)): counts add up to N a step, no more.
        """
        threshold, _ = self.limits(codebook_size, tokens)
        return min(1.0, tokens / (threshold * codebook_size)) if threshold else 1.0

    def grace(self, decay: float, codebook_size: int = 1, tokens: int = 1) -> float:
        """Steps that a reset code lives without a single hit: the first n at which
        refill * decay^n < threshold. Infinite if the threshold is 0.

        ``codebook_size`` and ``tokens`` matter only if ``relative``, and cancel even then.
        They are accepted so that a caller need not know.
        """
        threshold, refill = self.limits(codebook_size, tokens)
        if threshold == 0 or decay == 1:
            return math.inf
        if decay == 0:
            return 1
        return math.floor(math.log(refill / threshold) / -math.log(decay)) + 1

    @torch.no_grad()
    def apply(
        self,
        codebook: Tensor,
        cluster_size: Tensor,
        x: Tensor,
        indices: Tensor,
        tokens: int,
        generator: torch.Generator,
    ) -> Reset | None:
        """Reset in place; None if no code is dead.

        Args:
            codebook: (K, D) unit rows. cluster_size: (K,) EMA of hits a step.
            x: (n, D) unit vectors, this rank's batch. indices: (n,) their codes.
            tokens: N, tokens of this step over all ranks.
            generator: a CPU generator, so that a seed draws the same on every device.

        Over ranks it does what one process does with all their tokens, one rank's after the
        other; the messages are as long as the dead codes' rows, and do not grow with N.
        """
        threshold, refill = self.limits(len(codebook), tokens)
        dead = (cluster_size < threshold).nonzero().flatten()
        if len(dead) == 0:
            return None
        same_draws(generator, x.device)
        whole = shard(len(x), x.device)
        donors = self._draw(len(dead), x, indices, cluster_size, generator, whole)
        codebook[dead] = picked(x, donors, whole)
        cluster_size[dead] = refill
        reset = Reset(dead, donors, threshold)
        if process()[0] == 0:
            logger.info("%s", reset)
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("codes: %s", dead.tolist())
        return reset

    def _draw(
        self,
        n: int,
        x: Tensor,
        indices: Tensor,
        cluster_size: Tensor,
        generator: torch.Generator,
        whole: Shard,
    ) -> Tensor:
        """(n,) tokens of the batch of all ranks for n dead codes; ``whole``: where x is in it."""
        pool, weight = self._pool(indices, cluster_size)
        if self.distinct:
            return _different(n, x, pool, weight, generator, whole)
        return _sample(n, pool, weight, generator, whole)

    def _pool(self, indices: Tensor, cluster_size: Tensor) -> tuple[Tensor, Tensor | None]:
        """This rank's tokens that may donate, and their weights (None: all alike)."""
        everything = torch.arange(len(indices), device=indices.device)
        if self.donors == "batch":
            return everything, None
        bins = sum_over_ranks(torch.bincount(indices, minlength=len(cluster_size)))
        if self.donors == "usage":  # a code's tokens share its long-run count between them
            return everything, (cluster_size / bins.clamp(min=1))[indices].clamp(min=1e-12)
        best = bins.topk(min(self.top if self.donors == "top" else 1, len(bins))).indices
        return torch.isin(indices, best).nonzero().flatten(), None


def _sample(
    n: int, pool: Tensor, weight: Tensor | None, generator: torch.Generator, whole: Shard
) -> Tensor:
    """n members of all ranks' pools: without replacement if there are enough, otherwise with it."""
    part = shard(len(pool), pool.device)
    enough = part.size >= n
    if weight is None:
        drawn = (
            torch.randperm(part.size, generator=generator)[:n]
            if enough
            else torch.randint(part.size, (n,), generator=generator)
        ).to(pool.device)
    elif enough:
        drawn = _highest(n, _race(weight, part, generator), part)
    else:  # fewer tokens than dead codes, so their weights may travel
        weights = picked(weight, torch.arange(part.size, device=pool.device), part).cpu()
        drawn = torch.multinomial(weights, n, replacement=True, generator=generator)
    return picked(pool + whole.first, drawn.to(pool.device), part)


def _race(weight: Tensor, part: Shard, generator: torch.Generator) -> Tensor:
    """Scores of this rank's tokens: the n highest of all ranks are a draw without replacement.

    Each token's clock rings after an exponential time at the rate of its weight; the score is
    1 / time. Bit for bit what torch.multinomial draws.
    """
    times = torch.empty(part.size).exponential_(generator=generator)
    own = times[part.first : part.first + len(weight)]
    return (weight.cpu() / own).to(weight.device)


def _highest(n: int, score: Tensor, part: Shard) -> Tensor:
    """Places (n,) of the n highest scores of all ranks, the highest first."""
    best = score.topk(min(n, len(score)))
    if not many():
        return best.indices
    mine = score.new_full((n, 2), -math.inf, dtype=torch.float64)
    mine[: len(best.indices)] = torch.stack([best.values.double(), best.indices + part.first], 1)
    scores, places = of_each_rank(mine).flatten(0, 1).unbind(1)
    return places[scores.topk(n).indices].long()


def _different(
    n: int, x: Tensor, pool: Tensor, weight: Tensor | None, generator: torch.Generator, whole: Shard
) -> Tensor:
    """n tokens of all ranks' with n vectors while there are as many: of the pool, then the rest."""
    rest = torch.ones(len(x), dtype=torch.bool, device=x.device)
    rest[pool] = False
    rest = rest.nonzero().flatten()
    turn = torch.empty(len(x), dtype=torch.float64, device=x.device)
    turn[pool], size = _turns(pool, weight, generator)
    turn[rest] = size + _turns(rest, None, generator)[0]
    tokens = _first_of_each(turn.argsort(), x)[:n]
    if many():
        tokens = _first_over_ranks(n, turn[tokens], x[tokens], tokens + whole.first)
    return tokens[torch.arange(n, device=x.device) % len(tokens)]


def _turns(pool: Tensor, weight: Tensor | None, generator: torch.Generator) -> tuple[Tensor, int]:
    """When each of this rank's ``pool`` is drawn, if all ranks' pools are drawn empty; their size.

    The one with the lowest number first.
    """
    part = shard(len(pool), pool.device)
    if weight is not None:
        return -_race(weight, part, generator).double(), part.size
    turns = torch.randperm(part.size, generator=generator).argsort().to(pool.device)
    return turns[part.first : part.first + len(pool)].double(), part.size


def _first_over_ranks(n: int, turn: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """`_first_of_each` of all ranks' candidates: at most n of each, whose vectors are ``rows``.

    Vectors are compared by a number of 64 bits each, so that only the chosen ones travel.
    """
    mine = torch.full((n, 3), math.inf, dtype=torch.float64, device=rows.device).view(torch.int64)
    mine[: len(tokens)] = torch.stack([turn.view(torch.int64), _hashes(rows), tokens], 1)
    turn, hashes, tokens = of_each_rank(mine).flatten(0, 1).unbind(1)
    turn = turn.contiguous().view(torch.float64)
    order = turn.argsort()[: int(turn.isfinite().sum())]
    return tokens[_first_of_each(order, hashes[:, None])]


def _hashes(rows: Tensor) -> Tensor:
    """(n,) int64, the same for equal ``rows`` (n, D) and, but for a rare chance, only for them."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(2**62, (rows.shape[1],), generator=generator) * 2 + 1
    bits = (rows + 0.0).contiguous().view(torch.int32).long()  # -0 becomes 0
    return (bits * factors.to(rows.device)).sum(dim=-1)


def _first_of_each(order: Tensor, x: Tensor) -> Tensor:
    """Of tokens in ``order``, those whose vector did not come before, in the same order."""
    _, group = x[order].unique(dim=0, return_inverse=True)
    place = torch.arange(len(order), device=x.device)
    earliest = torch.full_like(place, len(order)).scatter_reduce(0, group, place, "amin")
    return order[earliest[earliest < len(order)].sort().values]
