"""Ideas for flatter use: each does what it says, and evaluation changes nothing."""

import pytest
import torch
from torch.nn import functional as F

from vqlib import DeadCodeReset
from vqlib.quantization import variants
from vqlib.quantization.flatter import FLATTER, Conscience, SeesPosition, Whitened, places
from vqlib.quantization.quantizer import NormEMAQuantizer

K, DIM, GRID = 32, 16, (6, 7)


def batch(seed: int = 0, count: int = 8) -> torch.Tensor:
    """(count, 6, 7, DIM) of which half lies in a narrow cone."""
    z = torch.randn(count, *GRID, DIM, generator=torch.Generator().manual_seed(seed))
    z[::2] = 0.05 * z[::2] + F.one_hot(torch.tensor(0), DIM)
    return z


RESET = DeadCodeReset(0.5, relative=True, every=5)


def trained(kind, steps: int = 60, reset: DeadCodeReset | None = RESET):
    q = kind(K, DIM, reset=reset)
    for step in range(steps):
        q(batch(step))
    return q.eval()


def top(q) -> float:
    hits = torch.bincount(q(batch(99, count=64)).indices.flatten(), minlength=K)
    return float(hits.max() / hits.float().mean())


@pytest.mark.parametrize("name", FLATTER)
def test_it_learns_takes_gradients_and_evaluation_changes_nothing(name):
    assert variants.named(name) is FLATTER[name]
    q = trained(FLATTER[name], steps=12)
    before = {key: value.clone() for key, value in q.state_dict().items()}
    z = batch(5).requires_grad_()
    out = q(z)
    (out.quantized.square().sum() + out.loss).backward()
    assert out.quantized.shape == z.shape and out.indices.shape == z.shape[:-1]
    assert z.grad.isfinite().all() and z.grad.any()
    assert all(torch.equal(before[key], value) for key, value in q.state_dict().items())


def test_a_conscience_flattens_use_and_its_bias_decides_in_evaluation():
    q = trained(Conscience, steps=200, reset=None)
    assert q.bias.std() > 0
    flat = F.normalize(batch(99), dim=-1).reshape(-1, DIM)
    expected = (flat @ q.codebook.T + q.bias).argmax(dim=-1)
    assert torch.equal(q(batch(99)).indices.flatten(), expected)
    assert top(q) < top(trained(NormEMAQuantizer, steps=200, reset=None))


def test_whitening_gives_features_of_equal_spread_by_running_averages():
    q = Whitened(K, DIM)
    scale = torch.linspace(0.1, 10, DIM)
    seen = []
    q._nearest = lambda x: seen.append(x) or NormEMAQuantizer._nearest(q, x)
    for step in range(80):
        q(torch.randn(32, *GRID, DIM, generator=torch.Generator().manual_seed(step)) * scale + 3)
    q.eval()
    q(torch.randn(32, *GRID, DIM, generator=torch.Generator().manual_seed(100)) * scale + 3)
    spread = seen[-1].std(dim=0)
    assert spread.max() / spread.min() < 1.2
    assert seen[-1].mean(dim=0).abs().max() < 0.05


def test_equal_patches_are_told_apart_by_their_place():
    q = SeesPosition(GRID[0] * GRID[1], DIM)
    z = torch.ones(3, *GRID, DIM)
    for _ in range(3):
        q(z)
    indices = q.eval()(z).indices
    assert (indices[0] == indices[1]).all() and (indices[0] == indices[2]).all()
    assert len(indices.unique()) > GRID[0] * GRID[1] / 2
    plain = NormEMAQuantizer(GRID[0] * GRID[1], DIM, kmeans_init=False)
    assert len(plain(z).indices.unique()) == 1


def test_places_are_unit_vectors_and_no_two_are_alike():
    found = places(14, 14, 64, torch.device("cpu"))
    assert found.shape == (14, 14, 64)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(14, 14))
    flat = found.reshape(-1, 64)
    assert (flat @ flat.T - torch.eye(196)).max() < 0.9999
