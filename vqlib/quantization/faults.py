"""Faults of public implementations, as small subclasses: teaching material and controls.

Each keeps the correct quantizer's interface, trains, and stays finite; each breaks one rule.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from vqlib.quantization.distributed import Shard, picked, shard
from vqlib.quantization.quantizer import NormEMAQuantizer, Quantized, on_sphere
from vqlib.quantization.reset import DeadCodeReset, Reset
from vqlib.quantization.search import nearest


class ForgetsTheCount(NormEMAQuantizer):
    """The reset moves the code but not its count: it is reset again, step after step.

    Seen in early music and video generators, where a code without hits is overwritten by a
    random encoder output at every step until a batch happens to hit it hard enough.
    """

    def _reset(self, step, x, indices, bins) -> Reset | None:
        counts = self.cluster_size.clone()
        reset = super()._reset(step, x, indices, bins)
        self.cluster_size.copy_(counts)
        return reset


class UndoneByTheAverage(NormEMAQuantizer):
    """The reset writes the codebook, then the same step's average rewrites it: a no-op.

    Codes are the direction of running sums kept beside the codebook. The reset touches the
    codebook only, and runs first; the sum of a code without hits only shrinks, so its
    direction, and with it the code, is what it was. Seen in much-copied audio codecs.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("sums", torch.zeros_like(self.codebook))

    def _start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codebook, counts = super()._start(x)
        self.sums.copy_(codebook * counts[:, None])
        return codebook, counts

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        self._batch_sums = sums  # the average comes after the reset

    def _reset(self, step, x, indices, bins) -> Reset | None:
        codes, counts = self.codebook.clone(), self.cluster_size.clone()
        reset = super()._reset(step, x, indices, bins)
        self.cluster_size.copy_(counts.lerp(bins, 1 - self.decay))
        self.sums.lerp_(self._batch_sums, 1 - self.decay)
        # of a code without hits the sum's direction is unchanged, so it need not be computed
        self.codebook.copy_(torch.where(bins[:, None] > 0, on_sphere(self.sums), codes))
        del self._batch_sums
        return reset


class CountsInEvaluation(NormEMAQuantizer):
    """Evaluation keeps updating the counts.

    A pass over a validation set lets the counts of all codes it does not use fall, and the
    next training step resets them together: utilization jumps after each validation and falls
    back. Seen in layers whose statistics are kept outside the test of training mode.
    """

    def forward(self, z: Tensor) -> Quantized:
        out = super().forward(z)
        if not self.training:
            bins = torch.bincount(out.indices.reshape(-1), minlength=self.codebook_size)
            self.cluster_size.lerp_(bins.to(self.cluster_size), 1 - self.decay)
        return out


class InconsistentStart(NormEMAQuantizer):
    """Running sums start at the codebook, running counts at 0; a code is sum / count.

    A code without a hit in the first step is divided by almost nothing: its norm grows by
    about 1 / EPS, and no input is ever near it. Seen in averages of sums and counts that
    start at random codes without k-means, so ``kmeans_init`` is ignored here. Codes are
    not renormalised, and the nearest one is found by L2 distance.
    """

    EPS = 1e-5  # of the usual smoothing of counts, (n + eps) / (N + K eps) * N

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.kmeans_init = False
        self.register_buffer("sums", self.codebook.clone())

    def _nearest(self, x: Tensor) -> Tensor:
        # argmin |x - c|^2 = argmax x.c - |c|^2 / 2
        return nearest(x, self.codebook, -self.codebook.square().sum(dim=-1) / 2)

    def _start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codebook, counts = super()._start(x)
        self.sums.copy_(codebook)
        return codebook, torch.zeros_like(counts)

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        self.cluster_size.lerp_(bins, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.cluster_size.sum()
        smooth = (self.cluster_size + self.EPS) / (total + self.codebook_size * self.EPS) * total
        if total > 0:
            self.codebook.copy_(self.sums / smooth[:, None])

    def _reset(self, step, x, indices, bins) -> Reset | None:
        reset = super()._reset(step, x, indices, bins)
        if reset is not None:
            counts = self.cluster_size[reset.codes, None]
            self.sums[reset.codes] = self.codebook[reset.codes] * counts
        return reset


class RanksDrawAlone(NormEMAQuantizer):
    """Each process moves dead codes to tokens of its own batch: the codebooks drift apart.

    A single process does what the correct quantizer does. Seen wherever a reset that was
    written for one process runs on several.
    """

    def _reset(self, step, x, indices, bins) -> Reset | None:
        reset = super()._reset(step, x, indices, bins)
        if reset is not None:
            self.codebook[reset.codes] = x[reset.donors % len(x)]
        return reset


class UnseededDraws(NormEMAQuantizer):
    """The reset draws from the process's generator: the quantizer's seed does not control it.

    Seen where ``randperm`` is called without a generator. (It is called without a device as
    well there, which on a card either crashes or draws other numbers than on a CPU.)
    """

    def _reset(self, step, x, indices, bins) -> Reset | None:
        own, self.generator = self.generator, torch.default_generator
        try:
            return super()._reset(step, x, indices, bins)
        finally:
            self.generator = own


class ColdStart(NormEMAQuantizer):
    """Counts begin at 0, not at those of the first batch.

    After the first step a count is only (1 - decay) times its hits: at decay 0.9, threshold 1
    asks for 10 hits in the first batch, and most of the k-means codebook is thrown away.
    Seen where the counts' buffer is zeros and only the codes are initialised from data.
    """

    def _start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codebook, counts = super()._start(x)
        return codebook, torch.zeros_like(counts)


def _as(kind: type[DeadCodeReset], reset: DeadCodeReset | None) -> DeadCodeReset | None:
    """The same settings under another rule."""
    return reset and kind(**{f.name: getattr(reset, f.name) for f in fields(reset)})


class WithReplacement(DeadCodeReset):
    """Draws donors with replacement, however many there are."""

    def _draw(self, n, x, indices, cluster_size, generator, whole: Shard) -> Tensor:
        pool, _ = self._pool(indices, cluster_size)
        part = shard(len(pool), pool.device)
        drawn = torch.randint(part.size, (n,), generator=generator).to(pool.device)
        return picked(pool + whole.first, drawn, part)


class DrawsWithReplacement(NormEMAQuantizer):
    """Several dead codes are moved to the same token.

    Of equal codes argmax finds only the first; the others are dead from the start. Seen where
    donors are drawn by ``randint`` instead of a permutation.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.reset = _as(WithReplacement, self.reset)


class UnreachableThreshold(NormEMAQuantizer):
    """The threshold is twice the uniform share N/K, at any N and K.

    Counts add up to N a step, so at most half of the codes can be above it, and the resets
    never end. Seen where a threshold is carried to a larger codebook or a smaller batch.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.reset is not None:
            self.reset = replace(self.reset, threshold=2.0, relative=True, refill=None)


class AtZero(DeadCodeReset):
    """A code is dead once its count has fallen to 0."""

    def limits(self, codebook_size: int, tokens: int) -> tuple[float, float]:
        return torch.finfo(torch.float32).tiny, super().limits(codebook_size, tokens)[1]


class WaitsForZero(NormEMAQuantizer):
    """Only a count of 0 is dead, which a moving average does not reach.

    In float32 it takes hundreds of steps without a hit to vanish. Seen where a threshold
    of 0 is meant as "only codes that are never used".
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.reset = _as(AtZero, self.reset)


class AveragesTwice(NormEMAQuantizer):
    """The loss, a mean already, is divided by the tokens again.

    Even with all inputs on one code it reads like success. Seen where a loss is averaged both
    in the layer and in the loop around it.
    """

    def forward(self, z: Tensor) -> Quantized:
        out = super().forward(z)
        return out._replace(loss=out.loss / out.indices.numel())


class ResetsEndEarly(NormEMAQuantizer):
    """Dead codes are reset in the first `LAST` steps only, as a schedule might have it.

    What the reset had kept in use dies after it, as the encoder moves on. Seen in latent-action
    models whose replacement of unused codes is scheduled for the beginning of training.
    """

    LAST = 40

    def _reset(self, step, x, indices, bins) -> Reset | None:
        return super()._reset(step, x, indices, bins) if step <= self.LAST else None


class PassesTwoDimensions(NormEMAQuantizer):
    """Only the last `PASSED` of the D dimensions of an input reach the codes.

    Every code may be in use, and none differs from another in the dimensions left out, nor does a
    gradient come back to them. Seen, without such a line, in tokenizers of pictures and sound
    that quantize from the first step: their codes span 3 to 5 of 256 dimensions
    (arXiv:2605.06870). There it comes about by training; here it is planted.
    """

    PASSED = 2

    def forward(self, z: Tensor) -> Quantized:
        passed = torch.arange(z.shape[-1], device=z.device) >= z.shape[-1] - self.PASSED
        return super().forward(z * passed.to(z.dtype))


class SumsItsLoss(NormEMAQuantizer):
    """The loss is summed over the D features, beside a reconstruction that is averaged.

    Its gradient becomes D times as large, and the encoder learns to please the codes, not the
    decoder. Seen in tokenizers of items for recommendation, whose reconstruction was a mean over
    768 features and whose quantizers' losses were sums.
    """

    def forward(self, z: Tensor) -> Quantized:
        out = super().forward(z)
        return out._replace(loss=out.loss * self.dim)


FAULTS: dict[str, type[NormEMAQuantizer]] = {
    "forgets-the-count": ForgetsTheCount,
    "undone-by-the-average": UndoneByTheAverage,
    "counts-in-evaluation": CountsInEvaluation,
    "inconsistent-start": InconsistentStart,
    "ranks-draw-alone": RanksDrawAlone,
    "unseeded-draws": UnseededDraws,
    "cold-start": ColdStart,
    "draws-with-replacement": DrawsWithReplacement,
    "unreachable-threshold": UnreachableThreshold,
    "waits-for-zero": WaitsForZero,
    "averages-twice": AveragesTwice,
    "resets-end-early": ResetsEndEarly,
    "passes-two-dimensions": PassesTwoDimensions,
    "sums-its-loss": SumsItsLoss,
}
"""Each known fault by its stable name, as `TrainConfig.variant` takes it."""

EXPECTED: dict[str, str] = {
    "forgets-the-count": "reset-does-not-survive",
    "undone-by-the-average": "reset-does-not-survive",
    "counts-in-evaluation": "evaluation-changes-counts",
    "inconsistent-start": "first-step-explosion",
    "ranks-draw-alone": "ranks-disagree",
    "unseeded-draws": "not-reproducible",
    "cold-start": "cold-start",
    "draws-with-replacement": "duplicate-codes",
    "unreachable-threshold": "threshold-above-share",
    "waits-for-zero": "reset-never-fires",
    "averages-twice": "loss-hides-collapse",
    "resets-end-early": "resets-ended-too-early",
    "passes-two-dimensions": "dimensional-collapse",
    "sums-its-loss": "commitment-outweighs-reconstruction",
}
"""The finding, an id of `vqlib.diagnosis.findings`, that each fault must lead to."""
