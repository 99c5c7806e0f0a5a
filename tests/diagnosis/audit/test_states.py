"""What evaluation may change: a statistic that nothing reads, and one that a reset reads."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vqlib


class CountingQuantizer(nn.Module):
    """Codes follow their inputs' mean. ``seen`` counts use, in evaluation too."""

    def __init__(self, size=32, dim=8, decay=0.95, reset_below=0.0):
        super().__init__()
        self.decay, self.reset_below = decay, reset_below
        self.register_buffer("codebook", F.normalize(torch.randn(size, dim), dim=-1))
        self.register_buffer("seen", torch.full((size,), 2.0))

    def forward(self, z):
        z = F.normalize(z, dim=-1)
        x = z.reshape(-1, z.shape[-1])
        indices = (x @ self.codebook.T).argmax(-1)
        quantized = self.codebook[indices].view_as(z)
        hot = F.one_hot(indices, len(self.codebook)).to(x)
        hits = hot.sum(0)
        self.seen.lerp_(hits, 1 - self.decay)
        if self.training:
            mean = hot.T @ x / hits.clamp(min=1)[:, None]
            moved = F.normalize(self.codebook.lerp(mean, 1 - self.decay), dim=-1)
            self.codebook.copy_(torch.where(hits[:, None] > 0, moved, self.codebook))
            dead = self.seen < self.reset_below
            if dead.any():
                self.codebook[dead] = x[torch.randint(len(x), (int(dead.sum()),))]
                self.seen[dead] = self.reset_below + 1
        return quantized, indices.view(z.shape[:-1]), F.mse_loss(z, quantized)


class SilentQuantizer(CountingQuantizer):
    """It keeps its codes, and what it counts is only logged."""

    def forward(self, z):
        training, self.training = self.training, False
        output = super().forward(z)
        self.training = training
        return output


def answer(make, **adapter):
    found = vqlib.audit(make, ranks=False, **adapter)
    return found["evaluation-changes-counts"]


@pytest.mark.parametrize("make", [CountingQuantizer, SilentQuantizer])
def test_a_statistic_that_nothing_reads_is_a_note(make):
    found = answer(make)
    assert found.severity == "note"
    assert found.cause == "Evaluation changes a statistic; training is the same to the bit."


@pytest.mark.parametrize("below", [0.1, 1.0])
def test_a_count_that_a_reset_reads_is_critical(below):
    found = answer(lambda: CountingQuantizer(reset_below=below))
    assert found.severity == "critical"
    (differs,) = (e for e in found.evidence if "differs" in e.name)
    assert differs.value >= 1


def test_a_slow_count_that_a_hidden_reset_reads_is_critical():
    # 69 steps from 2 to 1: longer than the audit waits for a reset it knows nothing of
    found = answer(lambda: CountingQuantizer(decay=0.99, reset_below=1.0))
    assert found.severity == "critical"
