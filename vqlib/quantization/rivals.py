"""Remedies that others propose, each as a small change of the same quantizer.

So they can be compared on equal terms: same start, same average, same assignment, but for the one
idea that is on trial. What is a setting of `DeadCodeReset` (random restarts, Mimi's rule) or of a
training (a frozen encoder, narrow codes) is no class here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.quantization.compiling import uncompiled
from vqlib.quantization.distributed import same_draws, shard
from vqlib.quantization.quantizer import NormEMAQuantizer, Quantized, on_sphere, spherical_kmeans
from vqlib.quantization.reset import Reset
from vqlib.quantization.search import nearest_inputs


class Restarting(NormEMAQuantizer):
    """Dead codes are moved by `_move`; a `DeadCodeReset` says who is dead, and how often."""

    def _reset(self, step: int, x: Tensor, indices: Tensor, bins: Tensor) -> Reset | None:
        if self.reset is None or step % self.reset.every:
            return None
        threshold, refill = self.reset.limits(self.codebook_size, int(bins.sum()))
        alive = self.cluster_size >= threshold
        return None if alive.all() else self._move(alive, x, threshold, refill)

    def _move(self, alive: Tensor, x: Tensor, threshold: float, refill: float) -> Reset | None:
        """Move codes that are not ``alive`` (K,), after a batch ``x`` (N, D)."""
        raise NotImplementedError


class KMeansRestart(Restarting):
    """Dead codes move to the centres of a fresh k-means on the batch, each to the token nearest.

    After Łańcucki et al. 2020 (arXiv:2005.08520), who re-estimate the codebook from recent
    outputs. If more codes are dead than the batch has tokens, they wait.
    """

    ITERATIONS = 3

    def _move(self, alive: Tensor, x: Tensor, threshold: float, refill: float) -> Reset | None:
        dead = (~alive).nonzero().flatten()
        if len(dead) > shard(len(x), x.device).size:
            return None
        means, _ = spherical_kmeans(x, len(dead), self.generator, self.ITERATIONS)
        donors, rows = nearest_inputs(means, x)
        self.codebook[dead], self.cluster_size[dead] = rows, refill
        return Reset(dead, donors, threshold)


class SplitsMostUsed(Restarting):
    """A dead code becomes a twin of one of the most used codes, and they share its count.

    Codebook splitting as in UViM (Kolesnikov et al. 2022, arXiv:2205.10337), for as many codes
    as are dead, the most used first; a dead code beyond as many as are alive waits.
    """

    APART = 0.01  # length of the random step between twins, over that of a code

    def _move(self, alive: Tensor, x: Tensor, threshold: float, refill: float) -> Reset | None:
        dead = (~alive).nonzero().flatten()[: int(alive.sum())]
        if not len(dead):
            return None
        split = self.cluster_size.argsort(descending=True, stable=True)[: len(dead)]
        same_draws(self.generator, x.device)
        step_apart = torch.randn(len(dead), self.dim, generator=self.generator).to(x)
        twins = self.codebook[split] + self.APART * F.normalize(step_apart, dim=-1)
        self.codebook[dead] = F.normalize(twins, dim=-1)
        self.cluster_size[split] /= 2
        self.cluster_size[dead] = self.cluster_size[split]
        return Reset(dead, nearest_inputs(self.codebook[split], x)[0], threshold)


class Anchored(NormEMAQuantizer):
    """The less a code is used, the further each step moves it to an input near it.

    Clustering VQ (Zheng and Vedaldi 2023, arXiv:2307.15139, equations 4 to 6), with anchors
    drawn by similarity: an unused code is replaced, a code of average use is left alone.
    """

    one_process = True
    SHARPNESS = 20.0  # of the softmax over cosines from which an anchor is drawn
    LEAST = 1e-3  # a pull below this is none

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        super()._update(x, bins, sums)
        share = self.cluster_size / len(x)
        pull = torch.exp(-share * self.codebook_size * 10 / max(1 - self.decay, 1e-6) - 1e-3)
        rows = (pull > self.LEAST).nonzero().flatten()
        if len(rows):
            near = torch.softmax(self.SHARPNESS * self.codebook[rows] @ x.T, dim=-1)
            drawn = torch.multinomial(near.cpu(), 1, generator=self.generator).flatten()
            moved = torch.lerp(self.codebook[rows], x[drawn.to(x.device)], pull[rows, None])
            self.codebook[rows] = F.normalize(moved, dim=-1)


class MemoryReset(NormEMAQuantizer):
    """Every 50 steps the average forgets: codes and counts become those of this batch alone.

    The guide's "EMA with a periodic momentum reset".
    """

    EVERY = 50

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        decay = self.decay
        try:
            if (int(self.steps) + 1) % self.EVERY == 0:
                self.decay = 0.0
            super()._update(x, bins, sums)
        finally:
            self.decay = decay


class DriftKernel(NormEMAQuantizer):
    """Codes without a hit move as the codes near them did, weighted by similarity.

    The kernel rule of NSVQ (Lu et al. 2026, arXiv:2602.18896): what the encoder's drift does to
    used codes is passed on to the others.
    """

    SHARPNESS = 20.0  # of the softmax over cosines

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        before = self.codebook.clone()
        super()._update(x, bins, sums)
        used = bins > 0
        weights = torch.softmax(self.SHARPNESS * before[~used] @ before[used].T, dim=-1)
        moved = before[~used] + weights @ (self.codebook - before)[used]
        self.codebook[~used] = F.normalize(moved, dim=-1)


class Deferred(NormEMAQuantizer):
    """For its first 100 steps it passes inputs through, normalised; then it begins with k-means.

    Autoencoder warm-up, as in "Continuous First, Discrete Later" (2026, arXiv:2605.06870).

    Attributes:
        waited: buffer, int64 scalar, training steps passed through.
    """

    WAIT = 100
    waited: Tensor

    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.register_buffer("waited", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor) -> Quantized:
        if int(self.waited) >= self.WAIT:
            return super().forward(z)
        self._check(z)
        self.waited += self.training
        unit = on_sphere(z)
        indices = self._nearest(unit.detach().reshape(-1, self.dim))
        return Quantized(unit.to(z.dtype), indices.view(z.shape[:-1]), 0 * unit.sum())


class Balanced(NormEMAQuantizer):
    """In training every code gets about as many tokens: the assignment is a transport plan's.

    Sinkhorn's algorithm on similarities, as in OptVQ (Zhang et al. 2024, arXiv:2412.15195).
    In evaluation a token takes its nearest code.
    """

    one_process = True
    SHARPNESS, ITERATIONS = 20.0, 5

    def _nearest(self, x: Tensor) -> Tensor:
        if not self.training:
            return super()._nearest(x)
        plan = self.SHARPNESS * x @ self.codebook.T
        for _ in range(self.ITERATIONS):  # in logarithms: columns to N/K, then rows to 1
            plan -= plan.logsumexp(dim=0, keepdim=True)
            plan -= plan.logsumexp(dim=1, keepdim=True)
        return plan.argmax(dim=-1)


class EntropyLoss(NormEMAQuantizer):
    """The loss also asks for sure choices of each token and even use over the batch.

    Mean entropy of the soft choices less the entropy of their mean, as in MAGVIT-v2 (Yu et al.
    2023, arXiv:2310.05737, equation 5). It reaches the encoder only: codes follow the average.
    """

    one_process = True
    WEIGHT, SHARPNESS, TOKENS = 0.1, 20.0, 1024

    def forward(self, z: Tensor) -> Quantized:
        out = super().forward(z)
        if not self.training:
            return out
        unit = on_sphere(z).reshape(-1, self.dim)
        unit = unit[:: math.ceil(len(unit) / self.TOKENS)]
        soft = torch.softmax(self.SHARPNESS * unit @ self.codebook.T.clone(), dim=-1)
        unsure = torch.special.entr(soft).sum(dim=-1).mean()
        even = torch.special.entr(soft.mean(dim=0)).sum()
        return out._replace(loss=out.loss + self.WEIGHT * (unsure - even))


class Learned(NormEMAQuantizer):
    """Codes are parameters, which the model's optimizer trains; no average moves them.

    Attributes:
        codebook: parameter (K, D), normalised after each step. cluster_size as ever.
    """

    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        codebook = self.codebook
        del self.codebook
        self.codebook = nn.Parameter(codebook)

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        self.cluster_size.lerp_(bins, 1 - self.decay)

    def _begin(self, x: Tensor) -> int:
        step = super()._begin(x)
        self.codebook.copy_(F.normalize(self.codebook, dim=-1))
        return step


class MatchedMoments(Learned):
    """Codes are trained, and a loss pulls mean and covariance of codes and inputs together.

    The Wasserstein distance of two Gaussians, as in Wasserstein VQ (2025, arXiv:2506.15078),
    beside the codebook loss of van den Oord et al. 2017 (arXiv:1711.00937).
    """

    one_process = True
    WEIGHT, RIDGE = 0.5, 1e-4

    def forward(self, z: Tensor) -> Quantized:
        out = super().forward(z)
        if not self.training:
            return out
        unit = on_sphere(z).reshape(-1, self.dim)
        codes = F.normalize(self.codebook, dim=-1)
        loss = F.mse_loss(codes[out.indices.reshape(-1)], unit.detach())
        distance = gaussian_distance(unit, codes, self.RIDGE)
        return out._replace(loss=out.loss + loss + self.WEIGHT * distance)


def gaussian_distance(a: Tensor, b: Tensor, ridge: float) -> Tensor:
    """Squared 2-Wasserstein distance of the Gaussians with the moments of two samples.

    ``a`` (N, D), ``b`` (K, D). |m - m'|^2 + tr(S + S' - 2 (S^1/2 S' S^1/2)^1/2); the last
    trace is the sum of singular values of L^T L', with L L^T = S. ``ridge`` is added to the
    variances.
    """
    parts = []
    for sample in (a, b):
        centred = sample - sample.mean(dim=0)
        scatter = centred.T @ centred / len(sample)
        covariance = scatter + ridge * torch.eye(sample.shape[1]).to(scatter)
        parts.append((sample.mean(dim=0), covariance, torch.linalg.cholesky(covariance)))
    (mean, spread, root), (other_mean, other_spread, other_root) = parts
    overlap = torch.linalg.svdvals(root.T @ other_root).sum()
    return (mean - other_mean).square().sum() + spread.trace() + other_spread.trace() - 2 * overlap


class Gumbel(Learned):
    """Codes are drawn: a softmax over cosines with Gumbel noise, whose temperature falls.

    Jang et al. 2017 (arXiv:1611.01144), straight-through; with the pull towards even use of
    DALL-E (Ramesh et al. 2021, arXiv:2102.12092). In evaluation a token takes its nearest code.
    """

    one_process = True
    SHARPNESS, EVEN = 10.0, 5e-3  # of the cosines; weight of KL(mean choice, uniform)
    FIRST, LAST, STEPS = 1.0, 0.1, 200  # temperature, and steps in which it falls

    def forward(self, z: Tensor) -> Quantized:
        if not self.training:
            return super().forward(z)
        self._check(z)
        unit = on_sphere(z)
        flat = unit.reshape(-1, self.dim)
        temperature = self._prepare(flat.detach())
        logits = self.SHARPNESS * flat @ F.normalize(self.codebook, dim=-1).T
        noise = -torch.empty(logits.shape).exponential_(generator=self.generator).log()
        soft = torch.softmax((logits + noise.to(logits)) / temperature, dim=-1)
        indices = soft.argmax(dim=-1)
        hard = soft + (F.one_hot(indices, self.codebook_size) - soft).detach()
        mean = torch.softmax(logits, dim=-1).mean(dim=0)
        even = math.log(self.codebook_size) - torch.special.entr(mean).sum()
        quantized = (hard @ F.normalize(self.codebook, dim=-1)).view_as(unit)
        self._count(indices)
        shape = z.shape[:-1]
        return Quantized(quantized.to(z.dtype), indices.view(shape), self.EVEN * even)

    @uncompiled
    @torch.no_grad()
    def _prepare(self, x: Tensor) -> float:
        """Begin the step on ``x`` (N, D); its temperature."""
        done = min(1.0, (self._begin(x) - 1) / self.STEPS)
        return self.FIRST * (self.LAST / self.FIRST) ** done

    @uncompiled
    @torch.no_grad()
    def _count(self, indices: Tensor) -> None:
        bins = torch.bincount(indices, minlength=self.codebook_size)
        self.cluster_size.lerp_(bins.to(self.cluster_size), 1 - self.decay)
        self.steps += 1


RIVALS: dict[str, type[NormEMAQuantizer]] = {
    "kmeans-restart": KMeansRestart,
    "splits-most-used": SplitsMostUsed,
    "anchored": Anchored,
    "memory-reset": MemoryReset,
    "drift-kernel": DriftKernel,
    "deferred": Deferred,
    "balanced": Balanced,
    "entropy-loss": EntropyLoss,
    "matched-moments": MatchedMoments,
    "gumbel": Gumbel,
}
