"""Angles on the sphere, beside the arccosine."""

import math

import pytest
import torch
from torch.nn import functional as F

from vqlib.quantization.geometry import (
    angles,
    codebook_lag,
    distance_to_nearest,
    effective_rank,
    isotropic_rank,
)


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def at(*degrees):
    """Unit vectors (n, 2) at these angles."""
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_angles_agree_with_the_arccosine():
    a, b = unit(50, 5), unit(50, 5, seed=1)
    expected = (a * b).sum(dim=-1).acos().rad2deg()
    torch.testing.assert_close(angles(a, b), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("degrees", [0.0, 1e-3, 45.0, 180.0])
def test_angles_keep_their_digits_at_the_ends(degrees):
    assert float(angles(at(0.0), at(degrees))) == pytest.approx(degrees, rel=1e-3, abs=1e-5)


def test_lag_is_averaged_over_the_used_codes():
    codebook, counts = at(0, 90, 0), torch.tensor([3, 1, 0])
    sums = torch.cat([3 * at(10), at(120), at(77)])
    assert codebook_lag(codebook, counts, sums) == pytest.approx(20, rel=1e-4)


def test_distance_is_to_the_nearest_point_of_each_code():
    assert distance_to_nearest(at(0, 90), at(5, 180, 60)) == pytest.approx((5 + 30) / 2, rel=1e-4)


def test_without_codes_there_is_nothing_to_measure():
    assert math.isnan(codebook_lag(at(0), torch.tensor([0]), torch.zeros(1, 2)))
    assert math.isnan(distance_to_nearest(torch.empty(0, 2), at(0)))


@pytest.mark.parametrize(("n", "dim"), [(20, 64), (64, 64), (100, 32), (100, 512), (500, 8)])
def test_the_rank_of_random_vectors(n, dim):
    generator = torch.Generator().manual_seed(0)
    measured = effective_rank(torch.randn(n, dim, generator=generator))
    assert isotropic_rank(n, dim) == pytest.approx(measured, rel=0.02)


def test_the_rank_of_random_vectors_at_its_ends():
    assert isotropic_rank(2, 100) == pytest.approx(1, abs=0.01)
    assert isotropic_rank(10**9, 7) == pytest.approx(7, abs=1e-3)
    assert isotropic_rank(50, 1) == pytest.approx(1, abs=0.02)
    with pytest.raises(ValueError, match="n"):
        isotropic_rank(1, 8)


def test_the_rank_of_what_is_not_finite_is_not_known():
    assert math.isnan(effective_rank(torch.tensor([[1.0, 2.0], [math.nan, 0.0]])))
