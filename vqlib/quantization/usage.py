"""How a codebook is used: pure functions on counts, indices and vectors.

Letters used in the docstrings: K codes, N tokens (one token is one vector that
was quantized), D dimensions. ``counts`` is always shape (K,): how often each code
was chosen in some window. A number means little without its window: N tokens
can show at most ``uniform_utilization(K, N)`` of a codebook, even in perfect health.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from vqlib.quantization.geometry import (  # also found under these names
    effective_rank,
    feature_std,
    near_duplicates,
    pairwise_similarity,
)
from vqlib.quantization.ranges import Range, not_dense, number, shown, whole

__all__ = [
    "UsageCounter",
    "dead_codes",
    "effective_rank",
    "entropy",
    "feature_std",
    "gini",
    "near_duplicates",
    "pairwise_similarity",
    "perplexity",
    "perplexity_share",
    "summarize",
    "top_code_ratio",
    "uniform_utilization",
    "used_codes",
    "utilization",
]


class Array(Protocol):
    """NumPy's arrays and pandas' columns, as far as they are asked for."""

    def __array__(self) -> Any: ...

    def __len__(self) -> int: ...


Counts = Tensor | Array | Sequence[float]


def used_codes(counts: Counts) -> int:
    """Number of codes chosen at least once in the window. ``counts``: (K,)."""
    return int(_counts(counts).count_nonzero())


def utilization(counts: Counts) -> float:
    """Share of the codebook chosen at least once in the window, in [0, 1]. ``counts``: (K,)."""
    return used_codes(counts) / len(counts)


def entropy(counts: Counts, *, normalized: bool = False) -> float:
    """Shannon entropy of the use of codes, in nats; divided by ln K if ``normalized``.

    ``counts``: (K,). Normalized entropy of a codebook of one code is 1 by convention.
    Raises ValueError if nothing was counted.
    """
    p = _shares(counts)
    if not normalized:
        return float(_nats(p))
    return float(_nats(p)) / math.log(len(p)) if len(p) > 1 else 1.0


def perplexity(counts: Counts) -> float:
    """exp(entropy): how many codes, equally used, would carry as much information; in [1, K]."""
    return math.exp(entropy(counts))


def perplexity_share(counts: Counts) -> float:
    """Perplexity as a share of K, in (0, 1]."""
    return perplexity(counts) / len(counts)


def top_code_ratio(counts: Counts) -> float:
    """Count of the most used code over the average count N/K; 1: flat use, K: one code only."""
    p = _shares(counts)
    return float(p.max()) * len(p)


def gini(counts: Counts) -> float:
    """Gini coefficient of the counts: 0 if all are equal, (K-1)/K if one code has all."""
    p = _shares(counts).sort().values
    rank = torch.arange(1, len(p) + 1, dtype=p.dtype, device=p.device)
    return float((2 * rank - len(p) - 1).mul(p).sum() / len(p))


def dead_codes(cluster_size: Counts, threshold: float) -> Tensor:
    """Indices, int64 (n,), of the codes whose EMA count lies below ``threshold`` hits a step."""
    return (_counts(cluster_size) < number("threshold", threshold, Range(0))).nonzero().flatten()


def uniform_utilization(codebook_size: int, tokens: int) -> float:
    """Utilization that perfectly uniform use is expected to show in a window of ``tokens``.

    1 - (1 - 1/K)^N, the coupon collector's expectation. Compare a measured
    utilization with this, never with 1.
    """
    number("codebook_size", codebook_size, Range(1))
    number("tokens", tokens, Range(0))
    if codebook_size == 1:
        return float(tokens > 0)
    return -math.expm1(tokens * math.log1p(-1 / codebook_size))


class UsageCounter:
    """Counts codes over batches: ``update`` with indices, then ``compute``.

    >>> counter = UsageCounter(codebook_size=4)
    >>> counter.update(torch.tensor([[0, 1], [1, 1]]))
    >>> counter.compute()["used_codes"]
    2
    """

    def __init__(self, codebook_size: int):
        self.codebook_size = whole("codebook_size", codebook_size)
        self.counts = torch.zeros(self.codebook_size, dtype=torch.int64)

    def update(self, indices: Tensor) -> None:
        """Add ``indices``, integers of any shape in [0, K).

        Raises ValueError outside that, TypeError if it is no tensor.
        """
        if kind := not_dense(indices):
            raise TypeError(f"indices must be a dense tensor, got {kind}")
        flat = indices.detach().reshape(-1)
        if flat.is_floating_point() or flat.is_complex() or flat.dtype == torch.bool:
            raise ValueError(f"indices must be integers, got {indices.dtype}")
        if len(flat) and (int(flat.min()) < 0 or int(flat.max()) >= self.codebook_size):
            raise ValueError(
                f"indices must lie in [0, {self.codebook_size}), "
                f"got {int(flat.min())} to {int(flat.max())}"
            )
        self.counts += torch.bincount(flat, minlength=self.codebook_size).cpu()

    @property
    def tokens(self) -> int:
        """N: how many tokens were counted."""
        return int(self.counts.sum())

    def compute(self) -> dict[str, float]:
        """The history's usage columns for the window counted so far."""
        return summarize(self.counts)


def summarize(counts: Counts) -> dict[str, float]:
    """The usage columns of a history row from one window's ``counts`` (K,)."""
    (found,) = summarize_each(_counts(counts)[None])
    return found


def summarize_each(counts: Tensor) -> list[dict[str, float]]:
    """`summarize` of each window, ``counts`` (B, K), in one go.

    Raises ValueError if nothing was counted in one of them.
    """
    size, counts = counts.shape[1], counts.double()
    tokens = counts.sum(dim=1)
    shares = counts / _counted(tokens)[:, None]
    columns = counts.count_nonzero(dim=1), _nats(shares), shares.amax(dim=1), tokens
    return [
        {
            "used_codes": used,
            "utilization": used / size,
            "perplexity": math.exp(nats),
            "top_code_ratio": top * size,
            "window_tokens": int(n),
            "uniform_utilization": uniform_utilization(size, int(n)),
        }
        for used, nats, top, n in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _counts(counts: Counts) -> Tensor:
    try:
        counts = torch.as_tensor(counts).detach()
    except (RuntimeError, TypeError, ValueError, OverflowError):
        raise TypeError(f"counts must be numbers of shape (K,), got {shown(counts)}") from None
    if counts.is_complex():
        raise TypeError("counts must be real numbers, got complex ones")
    if counts.dim() != 1 or len(counts) == 0:
        raise ValueError(f"counts must have shape (K,) with K >= 1, got {tuple(counts.shape)}")
    if counts.is_floating_point() and not bool(counts.isfinite().all()):
        raise ValueError("counts must be finite, got NaN or infinity")
    if (least := counts.min().item()) < 0:
        raise ValueError(f"counts must not be negative, got {least}")
    return counts


def _counted(tokens: Tensor) -> Tensor:
    if not bool(tokens.all()):
        raise ValueError("no tokens were counted: counts are all 0")
    return tokens


def _nats(shares: Tensor) -> Tensor:
    """Entropy along the last dimension; rounding must not take it below 0."""
    return torch.special.entr(shares).sum(dim=-1).clamp(min=0)


def _shares(counts: Counts) -> Tensor:
    counts = _counts(counts).double()
    return counts / _counted(counts.sum())
