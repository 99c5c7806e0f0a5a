"""vqlib.model: shapes, gradients, and what it asks of its inputs."""

import pytest
import torch
from torch.nn import functional as F

from tests.training.tiny_training import copies, same_bits
from vqlib import NormEMAQuantizer, TrainConfig
from vqlib.training.model import VQVAE, build_model, tokenize


def small(channels=3):
    return VQVAE(NormEMAQuantizer(16, 8, kmeans_init=False), channels, width=8)


def pictures(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 1, 8, 8), (3, 3, 8, 20)])
def test_shapes(shape):
    batch, channels, height, width = shape
    out = small(channels)(pictures(*shape))
    grid = (batch, height // 4, width // 4)
    assert out.reconstruction.shape == shape
    assert out.indices.shape == grid and out.indices.dtype == torch.int64
    assert out.encoded.shape == out.quantized.shape == (*grid, 8)
    assert out.recon_loss.shape == out.commit_loss.shape == ()


def test_the_parts_make_the_whole():
    model, x = small().eval(), pictures(2, 3, 16, 16)
    out = model(x)
    assert torch.equal(model.encode(x), out.encoded)
    quantized, indices, loss = model.quantizer(out.encoded)
    assert torch.equal(indices, out.indices) and torch.equal(loss, out.commit_loss)
    assert torch.equal(model.decode(quantized), out.reconstruction)
    assert torch.equal(F.mse_loss(out.reconstruction, x), out.recon_loss)


def test_a_token_sits_where_its_pixels_are():
    model = small().eval()
    x = pictures(1, 3, 32, 32)
    changed = x.clone()
    changed[..., 14:18, 26:30] = 0
    differs = (model.encode(x) != model.encode(changed)).any(dim=-1)[0]
    assert differs[3:5, 6:8].any()
    differs[1:7, 4:] = False  # two tokens around: the layers overlap
    assert not differs.any()


def test_every_weight_learns_through_the_quantizer():
    model = small()
    out = model(pictures(4, 3, 16, 16))
    out.recon_loss.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.any(), name


def test_the_default_model_is_small():
    assert sum(p.numel() for p in build_model(TrainConfig()).parameters()) < 1_000_000


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 1, 8, 8), (1, 3, 10, 8), (1, 3, 8, 9)])
def test_wrong_pictures_are_refused_with_their_shape(shape):
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\) with H and W multiples of 4, got \("):
        small()(pictures(*shape))


@pytest.mark.parametrize("training", [True, False])
def test_tokenize_changes_nothing(training):
    model = small().train(training)
    before = copies(model.state_dict())
    x = pictures(2, 3, 16, 16)
    tokens = tokenize(model, x)
    assert model.training is model.quantizer.training is training
    assert same_bits(copies(model.state_dict()), before)
    assert torch.equal(tokens, model.eval()(x).indices)


def test_tokenize_gives_the_mode_back_after_an_error():
    model = small()
    with pytest.raises(ValueError, match="pictures must have shape"):
        tokenize(model, pictures(1, 1, 8, 8))
    assert model.training
