"""Interventions: quantizers that change one arrow of the guide's cycle, to test it as a cause."""

from __future__ import annotations

import torch
from torch import Tensor

from vqlib.quantizer import NormEMAQuantizer


class RandomCounts(NormEMAQuantizer):
    """Claim 1 cut: after each step every count is replaced by a random number."""

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        super()._update(x, bins, sums)
        random = torch.rand(self.codebook_size, generator=self.generator)
        self.cluster_size.copy_(random * 2 * len(x) / self.codebook_size)


INTERVENTIONS: dict[str, type[NormEMAQuantizer]] = {"random-counts": RandomCounts}
