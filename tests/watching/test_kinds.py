"""Causes and remedies fit what moves the codes: an optimizer, a moving average, or nothing."""

import pytest
import torch
import vector_quantize_pytorch as vqp
from torch import nn
from torch.nn import functional as F
from transformers import Wav2Vec2Config
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

import vqlib
from tests.diagnosis import histories

GONE = ("DeadCodeReset", "turn on", "moving average", "silence", "decay")


class LearnedQuantizer(nn.Module):
    """An embedding that only an optimizer moves."""

    def __init__(self, size=32, dim=8):
        super().__init__()
        self.embedding = nn.Embedding(size, dim)

    def forward(self, z):
        codes = torch.cdist(z, self.embedding.weight).argmin(-1)
        e = self.embedding(codes)
        loss = F.mse_loss(e, z.detach()) + 0.25 * F.mse_loss(z, e.detach())
        return z + (e - z).detach(), codes, loss


class AveragedTableQuantizer(LearnedQuantizer):
    """The same table, moved by averages of its inputs: its weight has no use for a gradient."""

    def __init__(self):
        super().__init__()
        self.decay = 0.9
        self.register_buffer("cluster_size", torch.ones(32))


def narrowing(layer):
    """A watch in which inputs draw together to two places."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam([*layer.parameters(), nn.Parameter(torch.zeros(1))], 1e-3)
    with vqlib.watch(layer.train()) as w:
        for step in range(60):
            z = 2 * torch.randn(128, 8)
            if step >= 15:
                z = torch.tensor([[1.0], [-1.0]]).repeat(64, 8) + 0.01 * z
            output = layer(z)
            if output[-1].requires_grad and output[-1].dim() == 0:
                optimizer.zero_grad()
                output[-1].backward()
                optimizer.step()
    return w


def said(found) -> str:
    grave = [a for a in found.answers if a.id in ("codebook-collapse", "top-code-dominates")]
    assert grave and found["codebook-collapse"].severity == "critical"
    return " ".join(f"{a.cause} {a.remedy}" for a in grave)


def test_codes_that_only_gradients_move():
    w = narrowing(LearnedQuantizer())
    assert w.settings["LearnedQuantizer"]["by_gradient"] == 1
    text = said(vqlib.diagnose(w))
    assert not [word for word in GONE if word in text]
    for word in ("balance", "k-means", "optimizer state", "gradient"):
        assert word in text


def test_a_table_with_counts_is_not_taken_for_one_that_only_gradients_move():
    w = vqlib.watch(AveragedTableQuantizer())
    assert "by_gradient" not in w.settings["AveragedTableQuantizer"]


@pytest.mark.parametrize("lattice", [vqp.FSQ(levels=[5, 5, 5], dim=8), vqp.LFQ(dim=8)])
def test_a_lattice_has_no_reset(lattice):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.quantizer = lattice

        def forward(self, z):
            return self.quantizer(z[None])

    text = said(vqlib.diagnose(narrowing(Model())))
    assert not [word for word in GONE if word in text]
    assert "projection" in text and "entropy" in text


class SimVQ1D(LearnedQuantizer):
    """As a copy of the paper's code has it: the table is frozen, and projected."""

    def __init__(self):
        super().__init__()
        self.embedding.weight.requires_grad_(False)
        self.embedding_proj = nn.Linear(8, 8)

    def forward(self, z):
        book = self.embedding_proj(self.embedding.weight)
        codes = torch.cdist(z, book).argmin(-1)
        e = book[codes]
        loss = F.mse_loss(e, z.detach()) + 0.25 * F.mse_loss(z, e.detach())
        return z + (e - z).detach(), codes, loss


class GumbelQuantize(nn.Module):
    """In taming-transformers' form: a projection to logits, and a table to read the codes from."""

    def __init__(self):
        super().__init__()
        self.temperature, self.kl_weight = 1.0, 5e-4
        self.proj, self.embed = nn.Linear(8, 32), nn.Embedding(32, 8)

    def forward(self, z):
        logits = self.proj(z)
        hot = F.gumbel_softmax(logits, self.temperature, hard=True)
        even = (F.softmax(logits, -1) * F.log_softmax(logits, -1)).sum(-1).mean()
        return hot @ self.embed.weight, hot.argmax(-1), self.kl_weight * even


class Narrow(nn.Module):
    """Of wav2vec 2.0's family, with all of the logits in favour of two codes."""

    def __init__(self):
        super().__init__()
        config = Wav2Vec2Config(
            num_codevectors_per_group=32,
            num_codevector_groups=1,
            codevector_dim=8,
            conv_dim=(8,),
            conv_stride=(1,),
            conv_kernel=(1,),
        )
        self.quantizer = Wav2Vec2GumbelVectorQuantizer(config)
        with torch.no_grad():
            self.quantizer.weight_proj.bias[:2] += 50

    def forward(self, z):
        return self.quantizer(z[None])


@pytest.mark.parametrize("build", [lambda: vqp.SimVQ(8, 32), SimVQ1D])
def test_codes_that_are_a_projection_of_a_fixed_table(build):
    text = said(vqlib.diagnose(narrowing(build())))
    for word in ("projection", "move together", "learning rate", "rows need no restart"):
        assert word in text
    assert not [word for word in (*GONE, "k-means") if word in text]


def test_codes_that_are_drawn_by_logits():
    layer = GumbelQuantize()
    with torch.no_grad():
        layer.proj.bias[:2] += 50
    for w in (narrowing(layer), narrowing(Narrow())):
        text = said(vqlib.diagnose(w))
        for word in ("temperature", "diversity or KL", "logits"):
            assert word in text
        assert not [word for word in (*GONE, "k-means", "optimizer state") if word in text]


def test_a_codebook_that_holds_copies_is_told_what_its_kind_can_do():
    history = histories.changed(histories.healthy(), "val", duplicates=histories.K // 2)
    for settings, word in (({}, "donors"), ({"projected": 1}, "projection"), ({"gumbel": 1}, "KL")):
        table = history.assign(**settings)
        assert word in vqlib.diagnose(table, codebook_size=histories.K)["duplicate-codes"].remedy
