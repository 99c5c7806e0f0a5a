"""Interventions: quantizers that change one arrow of the guide's cycle, to test it as a cause."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vqlib.quantization.distributed import same_draws
from vqlib.quantization.quantizer import (
    NormEMAQuantizer,
    assigned_sums,
    spherical_kmeans,
    where_directed,
)
from vqlib.quantization.search import nearest, nearest_inputs

LEADING = 10  # one code in so many leads
SWAP_AT = 25  # step after which leaders and trailers change places


def leaders(counts: Tensor) -> Tensor:
    """The tenth of the codes with the highest ``counts`` (K,), highest first; at least one."""
    return counts.argsort(descending=True, stable=True)[: max(1, len(counts) // LEADING)]


class RandomCounts(NormEMAQuantizer):
    """Claim 1 cut: after each step every count is replaced by a random number."""

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        super()._update(x, bins, sums)
        same_draws(self.generator, x.device)
        random = torch.rand(self.codebook_size, generator=self.generator)
        self.cluster_size.copy_(random * 2 * int(bins.sum()) / self.codebook_size)


class ZeroedCounts(NormEMAQuantizer):
    """Arrow 4-5 alone: after each step every count is 0, which the guide calls dead."""

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        super()._update(x, bins, sums)
        self.cluster_size.zero_()


class LeadersHeld(NormEMAQuantizer):
    """Arrow 1-2 cut: the tenth of the codes with the highest counts is not moved."""

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        before = self.codebook.clone()
        super()._update(x, bins, sums)
        held = leaders(self.cluster_size)
        self.codebook[held] = before[held]


class SwappedPlaces(NormEMAQuantizer):
    """After step 25 the leading tenth and the trailing tenth of the codes exchange their vectors.

    A code keeps its number and its count but gets another's place on the sphere. What
    follows shows whether early use or the place makes a code win.
    """

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        super()._update(x, bins, sums)
        if int(self.steps) + 1 == SWAP_AT:
            ahead, behind = leaders(self.cluster_size), leaders(-self.cluster_size)
            both = torch.cat([ahead, behind])
            self.codebook[both] = self.codebook[torch.cat([behind, ahead])]


class UnusedDrift(NormEMAQuantizer):
    """Arrow 5-6 cut: codes without a hit take part in the mean movement of the others."""

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        before = self.codebook.clone()
        super()._update(x, bins, sums)
        used = bins > 0
        shift = (self.codebook - before)[used].mean(dim=0)
        self.codebook[~used] = F.normalize(before[~used] + shift, dim=-1)


class UnusedPulled(NormEMAQuantizer):
    """Arrow 5-6 cut: codes without a hit move to their nearest input, at the rate of the others."""

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        super()._update(x, bins, sums)
        unused = bins == 0
        rows = self.codebook[unused]
        moved = rows.lerp(nearest_inputs(rows, x)[1], 1 - self.decay)
        self.codebook[unused] = F.normalize(moved, dim=-1)


class CountWeighted(NormEMAQuantizer):
    """Hits do strengthen: a code is the direction of the moving average of its inputs' sums.

    The common EMA of van den Oord et al. 2017 (arXiv:1711.00937, appendix A.1): average
    of sums over average of counts; on the sphere the counts cancel, their weights do not.

    Attributes:
        sums: buffer (K, D), moving average of the sum of a code's inputs.
    """

    sums: Tensor

    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.register_buffer("sums", torch.zeros_like(self.codebook))

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        if not self.initialized:
            self.sums.copy_(self.codebook * self.cluster_size[:, None])
        self.cluster_size.lerp_(bins, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        moved = where_directed(self.sums, F.normalize(self.sums, dim=-1), self.codebook)
        self.codebook.copy_(where_directed(sums, moved, self.codebook))


class GradientCodebook(NormEMAQuantizer):
    """A root cause cut: codes descend the gradient of the codebook loss instead of EMA.

    Plain gradient descent on sum |stopgrad(z) - code|^2, at a rate at which a code of average
    use moves as fast as by EMA, and no code overshoots the mean of its inputs.
    """

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        self.cluster_size.lerp_(bins, 1 - self.decay)
        rate = (1 - self.decay) * bins * self.codebook_size / int(bins.sum())
        means = sums / bins.clamp(min=1)[:, None]
        moved = self.codebook.lerp(means, rate.clamp(max=1)[:, None])
        moved = where_directed(moved, F.normalize(moved, dim=-1), self.codebook)
        self.codebook.copy_(where_directed(sums, moved, self.codebook))


class RandomInputs(NormEMAQuantizer):
    """Starts at randomly drawn inputs of the first batch, without k-means."""

    def _start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return spherical_kmeans(x, self.codebook_size, self.generator, iterations=0)


class UnbalancedStart(NormEMAQuantizer):
    """Starts at k-means of one corner of the first batch: the eighth closest to one input."""

    one_process = True

    def _start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one = x[int(torch.randint(len(x), (1,), generator=self.generator))]
        size = min(len(x), max(self.codebook_size, len(x) // 8))
        corner = x[(x @ one).topk(size).indices]
        codebook, _ = spherical_kmeans(
            corner, self.codebook_size, self.generator, self.kmeans_iterations
        )
        return codebook, assigned_sums(x, nearest(x, codebook), self.codebook_size)[0]


INTERVENTIONS: dict[str, type[NormEMAQuantizer]] = {
    "random-counts": RandomCounts,
    "zeroed-counts": ZeroedCounts,
    "leaders-held": LeadersHeld,
    "swapped-places": SwappedPlaces,
    "unused-drift": UnusedDrift,
    "unused-pulled": UnusedPulled,
    "count-weighted": CountWeighted,
    "gradient-codebook": GradientCodebook,
    "random-inputs": RandomInputs,
    "unbalanced-start": UnbalancedStart,
}
