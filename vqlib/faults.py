"""Faults of public implementations, as small subclasses: teaching material and controls."""

from __future__ import annotations

from vqlib.quantizer import NormEMAQuantizer
from vqlib.reset import Reset


class ForgetsTheCount(NormEMAQuantizer):
    """The reset moves the code but not its count: it is reset again, step after step."""

    def _reset(self, step, x, indices, bins) -> Reset | None:
        counts = self.cluster_size.clone()
        reset = super()._reset(step, x, indices, bins)
        self.cluster_size.copy_(counts)
        return reset


FAULTS: dict[str, type[NormEMAQuantizer]] = {"forgets-the-count": ForgetsTheCount}
