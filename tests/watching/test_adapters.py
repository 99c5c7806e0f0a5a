"""Layers are recognised by their class and attributes, and read in the order of their inputs."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import vector_quantize_pytorch as vqp
from diffusers.models.autoencoders.vae import VectorQuantizer
from torch import nn
from transformers.models.xcodec2.modeling_xcodec2 import Xcodec2FiniteScalarQuantization

import vqlib
from vqlib.quantization.faults import ForgetsTheCount
from vqlib.watching import adapters
from vqlib.watching.adapters import adapter_for

SMALL = {"dim": 8, "codebook_size": 16}
PLAIN = {"n_e": 16, "vq_embed_dim": 8, "beta": 0.25}


class Subclass(vqp.VectorQuantize):
    pass


@pytest.mark.parametrize(
    "layer, adapter",
    [
        (vqlib.NormEMAQuantizer(16, 8), adapters.NORM_EMA),
        (ForgetsTheCount(16, 8), adapters.NORM_EMA),
        (Subclass(**SMALL), adapters.VECTOR_QUANTIZE),
        (vqp.SimVQ(**SMALL), adapters.SIM_VQ),
        (vqp.FSQ(levels=[4, 4]), adapters.LATTICE),
        (vqp.ResidualVQ(num_quantizers=2, beam_size=2, **SMALL), adapters.BEAM_RESIDUAL),
        (vqp.ResidualVQ(num_quantizers=2, **SMALL), None),
        (VectorQuantizer(**PLAIN), adapters.PLAIN),
        (nn.Embedding(16, 8), None),
        (nn.TransformerEncoderLayer(8, 2), None),
    ],
)
def test_what_is_recognised(layer, adapter):
    assert adapter_for(layer) is adapter


def test_a_table_of_words_is_no_codebook():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(16, 8)

    class QuantizedLinear(nn.Linear):
        pass

    assert adapter_for(Language()) is None
    assert adapter_for(QuantizedLinear(4, 4)) is None


CALLED = {
    "ours": vqlib.NormEMAQuantizer(16, 8),
    "VectorQuantize": vqp.VectorQuantize(**SMALL),
    "cosine": vqp.VectorQuantize(**SMALL, use_cosine_sim=True),
    "pictures": vqp.VectorQuantize(**SMALL, accept_image_fmap=True),
    "volumes": vqp.VectorQuantize(**SMALL, accept_3d_fmap=True),
    "channels first": vqp.VectorQuantize(**SMALL, channel_last=False),
    "SimVQ": vqp.SimVQ(**SMALL),
    "SimVQ, channels first": vqp.SimVQ(**SMALL, channel_first=True),
    "diffusers": VectorQuantizer(**PLAIN),
}


@pytest.mark.parametrize("kind", CALLED)
def test_a_call_gives_codes_in_the_order_of_the_tokens(kind):
    layer = CALLED[kind].eval()
    adapter = adapter_for(layer)
    z = torch.randn(50, 8)
    output = adapter.call(layer, z)
    indices = adapter.indices(layer, output).reshape(-1)
    quantized = adapter.quantized(output).reshape(-1, 8)
    codebook = adapter.codebook(layer)
    assert codebook.shape == (16, 8) and indices.shape == (50,)
    assert torch.allclose(codebook[indices], quantized, atol=1e-5)
    length = {"ours", "cosine"}  # these compare directions
    near = (z @ codebook.T).argmax(-1) if kind in length else torch.cdist(z, codebook).argmin(-1)
    assert torch.equal(indices, near)


@pytest.mark.parametrize(
    "layer, width",
    [
        (vqp.FSQ(levels=[4, 4], dim=8), 8),
        (vqp.LFQ(codebook_size=16, dim=8), 8),
        (Xcodec2FiniteScalarQuantization(SimpleNamespace(quantization_levels=[4, 4])), 2),
    ],
)
def test_a_call_of_a_lattice(layer, width):
    adapter = adapter_for(layer.eval())
    z = torch.randn(50, width)
    output = adapter.call(layer, z)
    assert adapter.quantized(output).shape == (50, width)
    indices = adapter.indices(layer, output).reshape(-1)
    alone = adapter.indices(layer, adapter.call(layer, z[7:8])).reshape(-1)
    assert indices.shape == (50,) and indices[7] == alone


def test_settings_of_vector_quantize():
    settings = adapters.VECTOR_QUANTIZE.settings
    fresh = vqp.VectorQuantize(**SMALL, decay=0.7, threshold_ema_dead_code=2)
    assert settings(fresh) == {
        "codebook_size": 16,
        "dim": 8,
        "beta": 1.0,
        "decay": 0.7,
        "dead_code_threshold": 2.0,
        "reset_relative": False,
        "reset_interval": 1,
        "reset_refill": 2.0,
        "kmeans_init": False,
    }
    assert settings(vqp.VectorQuantize(**SMALL, kmeans_init=True))["kmeans_init"] is True
    fresh(torch.randn(1, 50, 8))
    assert "kmeans_init" not in settings(fresh)  # nothing left that tells
    off = settings(vqp.VectorQuantize(**SMALL))
    assert off["dead_code_threshold"] == 0 and "reset_refill" not in off
    learned = vqp.VectorQuantize(**SMALL, learnable_codebook=True, ema_update=False)
    assert "decay" not in settings(learned)
    expiring = vqp.VectorQuantize(
        **SMALL, decay=0.7, threshold_ema_dead_code=2, learnable_codebook=True, ema_update=False
    )
    assert settings(expiring)["decay"] == 0.7  # of the counts
    assert adapters.VECTOR_QUANTIZE.counts(learned) is None  # kept, but never updated


def test_settings_of_ours():
    reset = vqlib.DeadCodeReset(threshold=0.1, relative=True, refill=1.0, every=5)
    settings = adapters.NORM_EMA.settings(vqlib.NormEMAQuantizer(16, 8, reset=reset))
    assert (settings["dead_code_threshold"], settings["reset_refill"]) == (0.1, 1.0)
    assert settings["reset_relative"] is True and settings["reset_interval"] == 5
    assert adapters.NORM_EMA.settings(vqlib.NormEMAQuantizer(16, 8))["dead_code_threshold"] == 0


class OneHotVQ(nn.Module):
    """Returns integers as one-hot rows, or as they are."""

    def __init__(self, marked: bool = True):
        super().__init__()
        self.embedding, self.marked = nn.Embedding(16, 8), marked

    def forward(self, z):
        indices = torch.cdist(z, self.embedding.weight).argmin(-1)
        shown = nn.functional.one_hot(indices, 16) if self.marked else indices
        return self.embedding(indices), shown, torch.zeros(())


def test_a_one_hot_matrix_is_read_as_the_codes_it_marks():
    layer = OneHotVQ()
    z = layer.embedding.weight.detach()[[3, 3, 7, 0]].reshape(1, 4, 8)
    assert adapters.PLAIN.indices(layer, layer(z)).tolist() == [[3, 3, 7, 0]]
    with vqlib.watch(layer) as w:
        layer(z)
    assert w.history[["used_codes", "window_tokens"]].to_numpy().tolist() == [[3, 4]]


def test_as_many_tokens_as_codes_are_no_one_hot_matrix():
    layer = OneHotVQ(marked=False)
    chosen = [0] * 15 + [1]  # collapsed, and like a row that marks its last code
    output = layer(layer.embedding.weight.detach()[chosen].reshape(1, 16, 8))
    assert adapters.PLAIN.indices(layer, output).tolist() == [chosen]


def test_a_codebook_that_lies_on_its_side():
    class Quantize(nn.Module):
        """Codes in columns, as in a much-copied VQ-VAE-2."""

        def __init__(self):
            super().__init__()
            self.register_buffer("embed", torch.randn(8, 16))
            self.register_buffer("cluster_size", torch.zeros(16))

        def forward(self, z):
            indices = torch.cdist(z, self.embed.T).argmin(-1)
            return self.embed.T[indices], torch.zeros(()), indices

    layer = Quantize()
    assert torch.equal(adapter_for(layer).codebook(layer), layer.embed.T)


def test_counts_of_something_else_are_none_of_the_codes():
    layer = OneHotVQ()
    layer.cluster_size = torch.zeros(3)
    adapter = adapter_for(layer)
    assert adapter.counts(layer) is None and adapter.codebook(layer) is layer.embedding.weight


def test_no_peer_is_imported_by_the_package():
    code = "import sys, vqlib; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peers = {"vector_quantize_pytorch", "transformers", "diffusers", "einops"}
    assert not set(done.stdout.split()) & peers


class MyVQ(nn.Module):
    """Looks up codes by rows of its input, which comes in one of many layouts."""

    def __init__(self, size=16, dim=8):
        super().__init__()
        self.register_buffer("codebook", torch.randn(size, dim))
        self.register_buffer("cluster_size", torch.ones(size))

    def forward(self, z):
        if self.training:
            self.cluster_size += 1
        indices = torch.cdist(z.reshape(-1, 8), self.codebook).argmin(-1)
        return self.codebook[indices].view(z.shape), indices, z.new_zeros(())


class LastVQ(MyVQ):  # (..., D)
    def forward(self, z):
        indices = (z @ self.codebook.T).argmax(-1)
        return self.codebook[indices], indices, z.new_zeros(())


class GridVQ(MyVQ):  # (B, H, W, D)
    def forward(self, z):
        assert z.dim() == 4
        return super().forward(z)


class PictureVQ(MyVQ):  # (B, D, H, W)
    def forward(self, z):
        quantized, *rest = super().forward(z.permute(0, 2, 3, 1))
        return quantized.permute(0, 3, 1, 2), *rest


class SoundVQ(MyVQ):  # (B, D, T)
    def forward(self, z):
        assert z.dim() == 3 and z.shape[1] == 8
        quantized, *rest = super().forward(z.transpose(1, 2))
        return quantized.transpose(1, 2), *rest


@pytest.mark.parametrize("kind", [MyVQ, LastVQ, GridVQ, PictureVQ, SoundVQ])
@pytest.mark.parametrize("tokens", [1, 8, 50])
def test_a_plain_layer_is_called_in_the_layout_it_takes(kind, tokens):
    torch.manual_seed(0)
    layer = kind()
    z, random = torch.randn(tokens, 8), torch.get_rng_state()
    quantized, indices, _ = adapter_for(layer).call(layer, z)
    near = torch.cdist(z, layer.codebook).argmin(-1)
    if kind is LastVQ:
        near = (z @ layer.codebook.T).argmax(-1)
    assert torch.equal(indices.flatten(), near)
    assert torch.equal(quantized, layer.codebook[near])
    assert int(layer.cluster_size[0]) == (1 if kind is LastVQ else 2)  # one pass, not the tries
    assert torch.equal(torch.get_rng_state(), random)


def test_a_plain_layer_that_takes_no_layout_says_what_it_was_fed():
    layer = LastVQ()
    with pytest.raises(ValueError, match=r"fed as \(1, 6, 5\).*fed as \(1, 5, 6, 1\)"):
        adapter_for(layer).call(layer, torch.randn(50, 5))
