"""Angles between codes and encoder outputs on the unit sphere, in degrees."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vqlib.quantizer import nearest


def angles(a: Tensor, b: Tensor) -> Tensor:
    """Degrees (...) between unit vectors ``a`` and ``b`` (..., D)."""
    # atan2 of chord lengths: acos loses all digits at small angles
    half = torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))
    return 2 * half.rad2deg()


def codebook_lag(codebook: Tensor, counts: Tensor, sums: Tensor) -> float:
    """Degrees between the used codes and what they would be if estimated anew, averaged.

    ``codebook`` (K, D) unit rows; ``counts`` (K,) hits; ``sums`` (K, D) of the unit inputs
    assigned to each. NaN where no code was hit.
    """
    used = counts > 0
    return _mean(angles(codebook[used], F.normalize(sums[used], dim=-1)))


def distance_to_nearest(codes: Tensor, points: Tensor) -> float:
    """Degrees from each of ``codes`` (n, D) to the nearest of ``points`` (N, D), averaged.

    Unit vectors. NaN where there are no codes.
    """
    return _mean(angles(codes, points[nearest(codes, points)])) if len(codes) else math.nan


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan
