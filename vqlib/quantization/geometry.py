"""How codes and encoder outputs lie: angles in degrees, similarity, duplicates, effective rank."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vqlib.quantization.ranges import Range, not_dense, number, whole
from vqlib.quantization.search import nearest


def angles(a: Tensor, b: Tensor) -> Tensor:
    """Degrees (...) between unit vectors ``a`` and ``b`` (..., D)."""
    # atan2 of chord lengths: acos loses all digits at small angles
    half = torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))
    return 2 * half.rad2deg()


def codebook_lag(codebook: Tensor, counts: Tensor, sums: Tensor) -> float:
    """Degrees between the used codes and what they would be if estimated anew, averaged.

    ``codebook`` (K, D) unit rows; ``counts`` (K,) hits; ``sums`` (K, D) of the unit inputs
    assigned to each. NaN if no code was hit.
    """
    used = counts > 0
    return _mean(angles(codebook[used], F.normalize(sums[used], dim=-1)))


def distance_to_nearest(codes: Tensor, points: Tensor) -> float:
    """Degrees from each of ``codes`` (n, D) to the nearest of ``points`` (N, D), averaged.

    Unit vectors. NaN if there are no codes.
    """
    return _mean(angles(codes, points[nearest(codes, points)])) if len(codes) else math.nan


def near_duplicates(codebook: Tensor, cosine: float = 0.999, chunk: int = 2**22) -> int:
    """Number of codes whose cosine with an earlier code is above ``cosine``.

    ``codebook``: (K, D). Removing that many codes would leave none so close. At
    most ``chunk`` similarities are held at once.
    """
    number("cosine", cosine, Range(-1, 1))
    unit = F.normalize(_vectors(codebook), dim=-1)
    rows = max(1, whole("chunk", chunk) // len(unit))
    found = 0
    for start in range(0, len(unit), rows):
        similarity = unit[start : start + rows] @ unit.T
        found += int((similarity.tril(start - 1) > cosine).any(dim=1).sum())
    return found


def pairwise_similarity(vectors: Tensor, *, centered: bool = False) -> float:
    """Average cosine similarity over all pairs of different vectors, in [-1, 1].

    ``vectors``: (..., D), at least two. ``centered`` subtracts the mean vector first: a
    common offset makes raw outputs look alike though they still tell inputs apart.
    Uses |sum of unit vectors|^2 = n + sum over pairs, so no n x n matrix is made.
    """
    x = _vectors(vectors, least=2)
    return float(similarity_of_each((x - x.mean(dim=0) if centered else x)[None]))


def similarity_of_each(samples: Tensor) -> Tensor:
    """(B,) `pairwise_similarity` of each of ``samples`` (B, n, D), n at least two."""
    unit = F.normalize(samples, dim=-1)
    n = (unit.norm(dim=-1) > 0.5).sum(dim=-1)  # a zero vector has no direction
    average = (unit.sum(dim=1).square().sum(dim=-1) - n) / (n * (n - 1))
    average = torch.where(n < 2, 1.0, average)
    return torch.where(samples.isfinite().all(dim=-1).all(dim=-1), average, math.nan)


def feature_std(vectors: Tensor) -> float:
    """Standard deviation of each feature over the vectors, averaged over features.

    ``vectors``: (..., D), at least two. Near 0: all inputs give one output.
    """
    return float(std_of_each(_vectors(vectors, least=2)[None]))


def std_of_each(samples: Tensor) -> Tensor:
    """(B,) `feature_std` of each of ``samples`` (B, n, D), n at least two."""
    return samples.std(dim=1).mean(dim=-1)


def effective_rank(vectors: Tensor) -> float:
    """exp(entropy of the normalised singular values) of the centred vectors, in [1, D].

    ``vectors``: (..., D). Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    x = _vectors(vectors, least=2).double()
    if not bool(x.isfinite().all()):
        return math.nan
    x = x - x.mean(dim=0)
    square = x.T @ x if len(x) > x.shape[1] else x @ x.T  # its eigenvalues are the same but for 0
    singular = torch.linalg.eigvalsh(square).clamp_min(0).sqrt()
    shares = singular / singular.sum().clamp_min(torch.finfo(torch.double).tiny)
    return math.exp(float(torch.special.entr(shares).sum()))


def isotropic_rank(n: int, dim: int) -> float:
    """The `effective_rank` that ``n`` random vectors show if no direction is preferred.

    ``dim``: D. Below min(n - 1, D): a sample's directions are never equally long. By the law of
    Marchenko and Pastur (1967) for large n and D; the error is about 1 % from 10 of each on.
    """
    few, many = sorted((number("n", n, Range(2)) - 1, number("dim", dim, Range(1))))
    edge = math.sqrt(few / many)
    angle = (torch.arange(1000, dtype=torch.double) + 0.5) * math.pi / 1000
    squares = 1 + edge**2 + 2 * edge * angle.cos()
    weights = angle.sin().square() / squares  # the density, on a grid that is dense at both ends
    weights = weights / weights.sum()
    singular = squares.sqrt()
    mean = (weights * singular).sum()
    return few * float(mean * (-(weights * singular * singular.log()).sum() / mean).exp())


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan


def _vectors(vectors: Tensor, least: int = 1) -> Tensor:
    if kind := not_dense(vectors) or (vectors.is_complex() and vectors.dtype):
        raise TypeError(f"vectors must be a dense tensor of real numbers, got {kind}")
    if vectors.dim() < 2 or not vectors.shape[-1]:
        raise ValueError(f"vectors must have shape (..., D), got {tuple(vectors.shape)}")
    x = vectors.detach().float().reshape(-1, vectors.shape[-1])
    if len(x) < least:
        raise ValueError(f"expected at least {least} vectors, got {len(x)}")
    return x
