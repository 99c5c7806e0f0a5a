"""NormEMAQuantizer: an L2-normalised codebook that follows its inputs by moving average.

Published with BEiT v2 (Peng et al. 2022, arXiv:2208.06366), later used by EEG tokenizers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.quantization.compiling import uncompiled
from vqlib.quantization.distributed import (
    from_first_rank,
    many,
    of_each_rank,
    picked,
    process,
    same_draws,
    shard,
    sum_over_ranks,
)
from vqlib.quantization.ranges import Range, not_dense, number, switch, whole
from vqlib.quantization.reset import DeadCodeReset, Reset
from vqlib.quantization.search import nearest


class Quantized(NamedTuple):
    """What a quantizer returns for inputs of shape (..., dim)."""

    quantized: Tensor  #: (..., dim), unit vectors, straight-through gradient
    indices: Tensor  #: (...), int64
    loss: Tensor  #: scalar, beta * mean((stopgrad(quantized) - z)^2), z normalised


class NonFiniteInput(ValueError):
    """NaN or infinity in a training batch."""


def on_sphere(z: Tensor) -> Tensor:
    """``z`` (..., D) scaled to unit length, in float32.

    A vector without a direction, all zeros, becomes the first axis: a zero row in the
    codebook would win against every code that points away.
    """
    z = z.float()
    # a card is not asked: that would stop its work
    if z.device.type == "cpu" and z.numel() and not torch.compiler.is_compiling():
        length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
        least, most = length.detach().aminmax()
        if least.item() > 1e-10 and most.item() < 1e15:
            return z / length
    longest = z.detach().abs().amax(dim=-1, keepdim=True)
    axis = F.one_hot(torch.zeros((), dtype=torch.int64, device=z.device), z.shape[-1]).float()
    empty = longest == 0
    # divided first, so that no length overflows or vanishes; by 1, not 0, for the gradient's sake
    scaled = z / longest.masked_fill(empty, 1.0)
    return F.normalize(torch.where(empty, axis, scaled), dim=-1)


def assigned_sums(
    x: Tensor, indices: Tensor, codebook_size: int, problem: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Per code, over all ranks: how many inputs it took (K,) float, and their sum (K, D).

    One message. A ``problem`` of this rank's batch goes with it, and all ranks `reject` it.
    """
    rank, ranks = process()
    size = codebook_size * x.shape[1]
    message = x.new_zeros(size + codebook_size + ranks)
    sums = message[:size].view(codebook_size, -1).index_add_(0, indices, x)
    bins = message[size:-ranks].index_add_(0, indices, x.new_ones(len(x)))
    if problem is not None:
        message[size + codebook_size + rank] = problem
    sum_over_ranks(message)
    if problem is not None:
        reject(message[-ranks:].tolist())
    return bins, sums


NOT_FINITE, EMPTY = 1, 2
SEEDS = Range(-(2**63), 2**63 - 1)  # that torch takes


def problem_of(x: Tensor) -> Tensor:
    """What is wrong with unit ``x`` (N, D), as a scalar: 0 (nothing), NOT_FINITE or EMPTY.

    What is not finite has no direction and is NaN by now, and so is its sum with all others.
    """
    if not len(x):
        return torch.tensor(EMPTY, device=x.device)
    return x.sum().isnan().long() * NOT_FINITE


def reject(problems: list[float]) -> None:
    """Raise, on every rank alike, if the batch of any has a problem; ``problems``: one a rank."""
    rank = next((rank for rank, problem in enumerate(problems) if problem), None)
    if rank is None:
        return
    where = f" on rank {rank} of {len(problems)}" if len(problems) > 1 else ""
    if problems[rank] == EMPTY:
        raise ValueError(f"z holds no tokens{where}; expected at least one")
    raise NonFiniteInput(
        f"z holds NaN or infinity{where}; it was rejected before it could reach the codebook"
    )


def spherical_kmeans(
    x: Tensor, codebook_size: int, generator: torch.Generator, iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """K-means on the unit sphere: means (K, D) and their counts (K,) at the last assignment.

    Starts at randomly drawn inputs; means are renormalised each iteration and an empty
    cluster keeps its mean. ``x`` (N, D) is this rank's part of the inputs of all ranks.
    """
    same_draws(generator, x.device)
    part = shard(len(x), x.device)
    drawn = torch.randperm(part.size, generator=generator)[:codebook_size]
    if len(drawn) < codebook_size:
        warnings.warn(
            f"the first batch has {part.size} tokens for {codebook_size} codes: k-means starts "
            "with duplicate codes; a first batch of at least as many tokens avoids it",
            stacklevel=2,
        )
        more = torch.randint(part.size, (codebook_size - len(drawn),), generator=generator)
        drawn = torch.cat([drawn, more])
    means = picked(x, drawn.to(x.device), part)
    for _ in range(iterations):
        _, sums = assigned_sums(x, nearest(x, means), codebook_size)
        means = where_directed(sums, F.normalize(sums, dim=-1), means)
    return means, assigned_sums(x, nearest(x, means), codebook_size)[0]


def where_directed(vectors: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """``new`` rows (K, D) where ``vectors`` have a direction, ``old`` rows where they are 0.

    That covers a code without inputs, and one whose inputs cancel. A choice of rows, not
    arithmetic: an unused code must not change by a single bit.
    """
    return torch.where(_directed(vectors), new, old)


def _directed(vectors: Tensor) -> Tensor:
    """Which rows of ``vectors`` (K, D) have a direction: bool (K, 1)."""
    return vectors.abs().amax(dim=-1, keepdim=True) > 1e-6


class NormEMAQuantizer(nn.Module):
    """Vector quantizer on the unit sphere whose codes follow an exponential moving average.

    One training step, for inputs flattened to N x D:

    1. ``z <- z / |z|``; on the first batch ever, spherical k-means sets the codebook;
    2. ``indices = argmax(z @ codebook.T)``;
    3. ``bins = bincount(indices)``;
    4. ``cluster_size <- decay * cluster_size + (1 - decay) * bins``;
    5. for each used code, ``m = normalise(sum of its inputs)``;
    6. ``codebook <- normalise(decay * codebook + (1 - decay) * m)``, unused codes untouched;
    7. ``reset``, if any, moves dead codes.

    ``cluster_size`` never enters step 6: it is a statistic that only the reset reads.
    The returned vectors are looked up before step 6. Evaluation changes nothing.
    Over torch.distributed ranks it learns as one process does from all their batches, one
    after the other; rank 0's seed counts. A step without a reset sends one message. In a
    compiled model, learning is one graph break. It learns in ``forward``: keep it outside
    regions that activation checkpointing runs twice.

    On a CPU a seed gives the same bits every time. On CUDA the inputs of a code are added up in
    no fixed order, so codes agree to rounding only; ``torch.use_deterministic_algorithms(True)``
    fixes the order.

    Args:
        codebook_size: K. dim: D. decay: of both moving averages, in [0, 1].
        beta: weight of the commitment loss, >= 0.
        kmeans_init: start from k-means of the first batch; otherwise from random unit vectors.
        reset: a `DeadCodeReset`, or None for none.
        kmeans_iterations: of the first batch's k-means.
        seed: of the generator behind every draw. It lives on the CPU, so that a seed
            draws the same on every device, and is part of the state_dict.

    Raises:
        SettingsError: a ValueError: a number out of its range.
        TypeError: ``reset`` is no reset.

    Attributes:
        codebook: buffer (K, D) float32, unit rows.
        cluster_size: buffer (K,) float32, EMA of hits a step; begins at the first
            batch's counts, so that nothing is dead just because training began.
        steps: buffer, int64 scalar, training steps seen; 0: not initialised.
        last_reset: what the last step reset, or None.
    """

    codebook: Tensor
    cluster_size: Tensor
    steps: Tensor
    __call__: Callable[[Tensor], Quantized]  # a module's own would be of any type
    one_process = False  #: whether a subclass learns from its own process's batch alone

    def __init__(
        self,
        codebook_size: int = 512,
        dim: int = 32,
        decay: float = 0.9,
        beta: float = 0.25,
        kmeans_init: bool = True,
        reset: DeadCodeReset | None = None,
        *,
        kmeans_iterations: int = 10,
        seed: int = 0,
    ):
        super().__init__()
        if reset is not None and not callable(getattr(reset, "apply", None)):
            raise TypeError(f"reset must be a DeadCodeReset or None, got {reset!r}")
        self.codebook_size, self.dim = whole("codebook_size", codebook_size), whole("dim", dim)
        self.decay, self.beta = number("decay", decay, Range(0, 1)), number("beta", beta, Range(0))
        self.kmeans_init = switch("kmeans_init", kmeans_init)
        self.kmeans_iterations = whole("kmeans_iterations", kmeans_iterations, least=0)
        self.reset = reset
        self.generator = torch.Generator().manual_seed(number("seed", seed, SEEDS, whole=True))
        start = torch.randn(self.codebook_size, self.dim, generator=self.generator)
        self.register_buffer("codebook", F.normalize(start, dim=-1))
        self.register_buffer("cluster_size", torch.zeros(self.codebook_size))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.last_reset: Reset | None = None

    @property
    def initialized(self) -> bool:
        """Whether the codebook has seen its first training batch."""
        return int(self.steps) > 0

    def forward(self, z: Tensor) -> Quantized:
        """Quantize ``z`` (..., dim), any float type; in training mode also learn from it.

        Raises:
            ValueError: wrong last dimension, no tokens (in training: on any rank), or an
                integer type; or several processes train a subclass that is for one.
            NonFiniteInput: NaN or infinity in a training batch, on any rank; nothing was
                changed.
            TypeError: ``z`` is no dense tensor, or the buffers are not float32.
        """
        self._check(z)
        with torch.autocast(z.device.type, enabled=False):
            unit = on_sphere(z)
            flat = unit.detach().reshape(-1, self.dim)
            if self.training:
                indices, codes = self._learn(flat)
            else:
                indices = self._nearest(flat)
                codes = self.codebook[indices]
            codes = codes.view_as(unit)
            loss = self.beta * F.mse_loss(unit, codes)
            quantized = unit + (codes - unit.detach())
        return Quantized(quantized.to(z.dtype), indices.view(z.shape[:-1]), loss)

    def decode(self, indices: Tensor) -> Tensor:
        """Codes (..., dim) of ``indices`` (...), e.g. to decode stored tokens."""
        return self.codebook[indices]

    def extra_repr(self) -> str:
        return (
            f"codebook_size={self.codebook_size}, dim={self.dim}, decay={self.decay}, "
            f"beta={self.beta}, kmeans_init={self.kmeans_init}, reset={self.reset}"
        )

    @uncompiled
    @torch.no_grad()
    def _learn(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One training step on ``x`` (N, D): the indices (N,) and the codes (N, D) of before."""
        step = self._begin(x)
        indices = self._nearest(x)
        codes = self.codebook.index_select(0, indices)
        problem = problem_of(x) if many() else None  # all ranks must hear of it, or some would wait
        bins, sums = assigned_sums(x, indices, self.codebook_size, problem)
        self._update(x, bins, sums)
        self.steps += 1
        self.last_reset = self._reset(step, x, indices, bins)
        return indices, codes

    def _nearest(self, x: Tensor) -> Tensor:
        """Indices (N,) of the codes that unit ``x`` (N, D) takes."""
        return nearest(x, self.codebook)

    def _start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codebook (K, D) and counts (K,) to begin with, from the first batch ``x`` (N, D)."""
        if self.kmeans_init:
            return spherical_kmeans(x, self.codebook_size, self.generator, self.kmeans_iterations)
        codebook = from_first_rank(self.codebook)
        return codebook, assigned_sums(x, nearest(x, codebook), self.codebook_size)[0]

    def _update(self, x: Tensor, bins: Tensor, sums: Tensor) -> None:
        """Steps 4 to 6: counts and codes follow the batch's ``bins`` (K,) and ``sums`` (K, D)."""
        self.cluster_size.lerp_(bins, 1 - self.decay)
        moved = self.codebook.lerp(F.normalize(sums, dim=-1), 1 - self.decay)
        moves = _directed(sums) & _directed(moved)
        torch.where(moves, F.normalize(moved, dim=-1), self.codebook, out=self.codebook)

    def _begin(self, x: Tensor) -> int:
        """On the first batch, set the codebook. The step's number.

        Alone, also reject a batch with a problem; ranks tell it with their sums.
        """
        if many() and self.one_process:
            raise ValueError(
                f"{type(self).__name__} learns from the batch of one process; got "
                f"{process()[1]} processes"
            )
        problem = problem_of(x)
        found, steps = torch.stack([problem, self.steps]).tolist()  # one look at the device
        if not many():
            reject([found])
        if steps == 0:
            reject(of_each_rank(problem).tolist())
            codebook, counts = self._start(x)
            self.codebook.copy_(codebook)
            self.cluster_size.copy_(counts)
        return steps + 1

    def _reset(self, step: int, x: Tensor, indices: Tensor, bins: Tensor) -> Reset | None:
        if self.reset is None or self.reset.threshold == 0 or step % self.reset.every:
            return None
        return self.reset.apply(
            self.codebook, self.cluster_size, x, indices, int(bins.sum()), self.generator
        )

    def _check(self, z: Tensor) -> None:
        if kind := not_dense(z):
            raise TypeError(f"z must be a dense tensor of shape (..., {self.dim}), got {kind}")
        if not z.is_floating_point():
            raise ValueError(f"z must be floating point, got {z.dtype}")
        if z.dim() < 1 or z.shape[-1] != self.dim:
            raise ValueError(f"z must have shape (..., {self.dim}), got {tuple(z.shape)}")
        if z.numel() == 0 and not (self.training and many()):  # together, all must hear of it
            raise ValueError(f"z holds no tokens: shape {tuple(z.shape)}")
        if self.codebook.dtype != torch.float32:
            raise TypeError(
                f"the codebook is {self.codebook.dtype}, and a moving average needs float32: "
                "call .float() on the quantizer after casting the model, or use torch.autocast"
            )

    def get_extra_state(self) -> Tensor:
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.last_reset = None
