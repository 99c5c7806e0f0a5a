"""Kinds of layers found in public code, rewritten in few lines: what is seen of them is true."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vqlib
from vqlib.watching.suggest import adapter_text

K, D = 16, 8


def chosen(w) -> list[int]:
    return [int(n) for n in w.history["used_codes"]]


class MarkedVectorQuantizer(nn.Module):
    """zalandoresearch/pytorch-vq-vae and its many copies: codes come as one-hot rows of floats."""

    def __init__(self):
        super().__init__()
        self._embedding = nn.Embedding(K, D)

    def forward(self, z):
        tokens = z.permute(0, 2, 3, 1).reshape(-1, D)
        marks = F.one_hot(torch.cdist(tokens, self._embedding.weight).argmin(-1), K).float()
        quantized = (marks @ self._embedding.weight).reshape(z.movedim(1, -1).shape).movedim(-1, 1)
        loss = F.mse_loss(quantized, z)
        return loss, quantized, marks.mean(0).square().sum(), marks


def test_one_hot_rows_of_floats_are_codes():
    layer = MarkedVectorQuantizer().train()
    seen = []
    with vqlib.watch(layer) as w:
        for _ in range(3):
            marks = layer(torch.randn(2, D, 3, 3))[-1]
            seen.append(int((marks.sum(0) > 0).sum()))
    assert chosen(w) == seen
    assert vqlib.audit(MarkedVectorQuantizer, ranks=False)["loss-hides-collapse"]


class TinyLFQ(nn.Module):
    """Signs of its inputs, on a codebook that is a buffer (TencentARC/SEED-Voken, FSQ-pytorch)."""

    def __init__(self):
        super().__init__()
        bits = torch.arange(2**D)[:, None] >> torch.arange(D - 1, -1, -1) & 1
        self.register_buffer("codebook", bits * 2.0 - 1)

    def forward(self, z):
        codes = ((z > 0).int() * 2 ** torch.arange(D - 1, -1, -1).int()).sum(-1).int()
        return z.sign(), z.new_zeros(()), codes


class BinarySphericalThing(TinyLFQ):
    """zhaoyue-zephyrus/bsq-vit: integers of other meanings beside the indices."""

    def __init__(self):
        super().__init__()
        del self.codebook
        self.num_dimensions = 2**D
        self.register_buffer("group_codebook", torch.randn(4, 2))

    def forward(self, z):
        quantized, loss, codes = super().forward(z)
        groups = torch.stack([codes >> 4, codes & 15], -1)
        used = None if self.training else codes.unique()
        return quantized, loss, {"used_codes": used, "group_indices": groups, "indices": codes}


class FiniteScalarThing(nn.Module):
    """AlmondGod/tinyworlds: no indices, but a method that gives them."""

    def __init__(self):
        super().__init__()
        self.codebook_size = 3**D
        self.register_buffer("basis", 3 ** torch.arange(D))

    def forward(self, z):
        return z.tanh().round()

    def get_indices_from_latents(self, codes):
        return ((codes + 1) * self.basis).sum(-1).long()


@pytest.mark.parametrize("kind", [TinyLFQ, BinarySphericalThing, FiniteScalarThing])
def test_copies_of_grids_are_known_by_their_names(kind):
    layer, seen = kind().train(), []
    with vqlib.watch(layer) as w:
        for step in range(4):
            layer.train(step < 3)
            z = torch.randn(60, D)
            layer(z)
            cells = z.tanh().round() if kind is FiniteScalarThing else z > 0
            seen.append(len(cells.unique(dim=0)))
    assert chosen(w) == seen
    (settings,) = w.settings.values()
    assert settings["fixed_grid"] == 1 and "by_gradient" not in settings
    assert settings["codebook_size"] == (3**D if kind is FiniteScalarThing else 2**D)
    assert vqlib.audit(kind, dim=D, ranks=False)["loss-hides-collapse"]


class LateCountsQuantizer(nn.Module):
    """Counts are made in the first forward, as those of T2M-GPT, MoMask and Jukebox."""

    def __init__(self):
        super().__init__()
        self.mu, self.code_count = 0.9, None
        self.register_buffer("codebook", torch.zeros(K, D))

    def forward(self, z):
        if self.code_count is None:
            self.codebook, self.code_count = z[:K].clone(), torch.ones(K)
        codes = torch.cdist(z, self.codebook).argmin(-1)
        quantized = self.codebook[codes]
        hits = torch.bincount(codes, minlength=K)
        self.code_count = self.mu * self.code_count + (1 - self.mu) * hits
        dead = (self.code_count < 1) & (hits == 0)
        self.codebook = torch.where(dead[:, None], z[-K:], self.codebook)
        return quantized, codes, int(dead.sum())


def test_resets_are_counted_though_the_counts_come_late():
    torch.manual_seed(0)
    layer, resets = LateCountsQuantizer().train(), []
    with vqlib.watch(layer) as w:
        for _ in range(20):
            resets.append(layer(torch.randn(4, D).repeat(16, 1) + 0.1 * torch.randn(64, D))[-1])
    (settings,) = w.settings.values()
    assert settings["decay"] == 0.9
    assert w.history["resets"].iloc[1:].tolist() == resets[1:] and sum(resets[1:]) > 20


class RestartedQuantizer(nn.Module):
    """LAPA's and others': a method, called from outside, sets unused codes anew."""

    def __init__(self):
        super().__init__()
        self.codebooks = nn.Parameter(torch.randn(K, D))

    def forward(self, z):
        codes = torch.cdist(z, self.codebooks).argmin(-1)
        return self.codebooks[codes], codes

    def replace_unused_codebooks(self): ...


class OnlyTrainedQuantizer(RestartedQuantizer):
    replace_unused_codebooks = None


@pytest.mark.parametrize("kind", [RestartedQuantizer, OnlyTrainedQuantizer])
def test_a_layer_that_can_restart_codes_is_not_said_to_be_moved_by_gradients_alone(kind):
    (settings,) = vqlib.watch(kind()).settings.values()
    assert ("by_gradient" in settings) == (kind is OnlyTrainedQuantizer)


class PairQuantizer(nn.Module):
    """Two pictures of 8 x 8 tokens go in; its codes come third (LatentActionPretraining/LAPA)."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(K, D))

    def forward(self, before, after):
        change = (after - before).reshape(-1, 8, 8, D).mean((1, 2))
        codes = torch.cdist(change, self.table).argmin(-1)
        return self.table[codes], change.mean(), codes


def test_an_adapter_is_written_for_a_layer_of_two_pictures():
    text = adapter_text(PairQuantizer())
    assert "output[2]" in text and "m.table" in text
    assert re.search(r"call=lambda m, z: m\(z, after=\.\.\.\)", text)
