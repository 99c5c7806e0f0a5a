"""Published layers behind our interface: same inputs, one index a token, gradients that arrive."""

import pytest
import torch

from vqlib.lessons import packages, remedies
from vqlib.quantization.quantizer import on_sphere

CONFIG = remedies.REMEDIES["baseline"].config(seed=0)


def inputs(seed=0):
    """(2, 14, 14, D): more tokens than codes."""
    return torch.randn(2, 14, 14, CONFIG.dim, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=packages.LAYERS)
def layer(request):
    return packages.packaged(request.param, CONFIG)


def test_every_layer_has_as_many_codes_and_one_index_a_token(layer):
    z = inputs().requires_grad_()
    quantized, indices, loss = layer.train()(z)
    assert layer.codebook_size == CONFIG.codebook_size and layer.dim == CONFIG.dim
    assert quantized.shape == z.shape and indices.shape == z.shape[:-1] and loss.dim() == 0
    assert indices.dtype == torch.int64
    assert indices.min() >= 0 and indices.max() < layer.codebook_size
    (quantized.sum() + loss).backward()
    assert z.grad.abs().sum() > 0


def test_an_index_is_one_vector(layer):
    z = inputs()
    layer.train()(z)
    quantized, indices, _ = layer.eval()(z)
    flat, places = quantized.detach().reshape(-1, layer.dim), indices.flatten()
    codes = torch.zeros(layer.codebook_size, layer.dim)
    codes[places] = flat
    torch.testing.assert_close(codes[places], flat)
    assert len(places.unique()) == len(codes[places].round(decimals=5).unique(dim=0))


@pytest.mark.parametrize("name", [n for n in packages.LAYERS if n != "affine"])
def test_the_length_of_an_input_does_not_matter(name):
    """Not asked of the affine layer: its statistics of the inputs move in evaluation, too."""
    layer = packages.packaged(name, CONFIG)
    layer.train()(inputs())
    layer.eval()
    torch.testing.assert_close(layer(inputs(1)).quantized, layer(5 * inputs(1)).quantized)


def test_what_went_in_scaled_comes_back_on_our_scale():
    """A lattice whose projections are the identity gives back about what it was given."""
    layer = packages.packaged("fsq", CONFIG)
    given = []
    layer.layer.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    quantized = layer(inputs()).quantized
    torch.testing.assert_close(given[0].square().mean(dim=-1).sqrt(), torch.ones(1, 392))
    torch.testing.assert_close(
        quantized.reshape(1, -1, CONFIG.dim) * CONFIG.dim**0.5, layer.layer(given[0])[0]
    )


def test_two_levels_count_through_both_codebooks():
    layer = packages.packaged("residual", CONFIG)
    layer.train()(inputs())
    _, indices, _ = layer.eval()(inputs())
    _, pairs, _ = layer.layer(on_sphere(inputs()).reshape(1, -1, CONFIG.dim))
    first, second = pairs.reshape(-1, 2).T
    assert torch.equal(indices.flatten(), first * layer.sizes[1] + second)
    assert len(first.unique()) > 1 and len(second.unique()) > 1


def test_one_seed_is_one_layer_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    one = packages.packaged("simvq", CONFIG).state_dict()
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))
    again = packages.packaged("simvq", CONFIG).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
