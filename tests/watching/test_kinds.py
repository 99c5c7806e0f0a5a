"""Causes and remedies fit what moves the codes: an optimizer, a moving average, or nothing."""

import pytest
import torch
import vector_quantize_pytorch as vqp
from torch import nn
from torch.nn import functional as F

import vqlib

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
