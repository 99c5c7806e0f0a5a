"""The audit and the watch of layers written by others, whose resets do nothing or never end."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vqlib

SIZE, DIM = 32, 8


class AveragedQuantizer(nn.Module):
    """Moving averages of sums and counts; ``early`` resets before the update, which wins."""

    def __init__(self, threshold=1.0, early=False, names=("threshold_ema_dead_code", "N")):
        super().__init__()
        self.ema_decay, self.early, self.names = 0.9, early, names
        if names[0]:
            setattr(self, names[0], threshold)
        self.least = threshold
        self.register_buffer("codebook", torch.randn(SIZE, DIM))
        self.register_buffer("sums", self.codebook * 3)
        self.register_buffer(names[1], torch.full((SIZE,), 3.0))

    @property
    def held(self):
        return getattr(self, self.names[1])

    def forward(self, z):
        lead, z = z.shape[:-1], z.reshape(-1, DIM)
        indices = torch.cdist(z, self.codebook).argmin(-1)
        quantized = self.codebook[indices]
        if self.training:
            if self.early:
                self.reset(z)
            hot = F.one_hot(indices, SIZE).to(z)
            self.held.lerp_(hot.sum(0), 1 - self.ema_decay)
            self.sums.lerp_(hot.T @ z, 1 - self.ema_decay)
            self.codebook.copy_(self.sums / self.held.clamp(min=1e-6)[:, None])
            if not self.early:
                self.reset(z)
        loss = F.mse_loss(z, quantized)
        return quantized.view(*lead, DIM), indices.view(lead), loss

    def reset(self, z):
        dead = self.held < self.least
        self.codebook[dead] = z[torch.randint(len(z), (int(dead.sum()),))]
        if not self.early:
            self.held[dead] = 2 * self.least
            self.sums[dead] = self.codebook[dead] * 2 * self.least


def collapsed(layer):
    """A watch of 150 steps, the last 120 of them on data in two places."""
    torch.manual_seed(0)
    places = torch.randn(SIZE, DIM)
    with vqlib.watch(layer.train()) as w:
        for step in range(150):
            some = torch.randint(SIZE if step < 30 else 2, (96,))
            layer(places[some] + 0.05 * torch.randn(96, DIM))
    return w


NAMES = [("threshold_ema_dead_code", "cluster_size_ema"), ("dead_threshold", "N")]
NAMES += [("threshold", "k_elem"), ("restart_threshold", "embedding_count")]


@pytest.mark.parametrize("names", NAMES)
def test_thresholds_counts_and_decays_are_read_by_their_usual_names(names):
    w = vqlib.watch(AveragedQuantizer(0.7, names=names))
    (settings,) = w.settings.values()
    assert settings["dead_code_threshold"] == 0.7 and settings["decay"] == 0.9
    found = vqlib.audit(lambda: AveragedQuantizer(0.7, names=names), ranks=False)
    assert found["reset-never-fires"].severity == "clear"


def test_a_threshold_without_counts_may_be_of_something_else():
    class SoftQuantizer(nn.Module):
        threshold, gamma = 0.5, 0.9

        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(SIZE, DIM)

        def forward(self, z):
            return z

    (settings,) = vqlib.watch(SoftQuantizer()).settings.values()
    assert not settings.keys() & {"dead_code_threshold", "decay"}


@pytest.mark.parametrize("names", [*NAMES, (None, "cluster_size"), (None, "own_name")])
def test_the_audit_finds_a_reset_that_the_same_step_overwrites(names):
    found = vqlib.audit(lambda: AveragedQuantizer(early=True, names=names), ranks=False)
    lasts = found["reset-does-not-survive"]
    assert lasts.severity == "critical" and "same step" in lasts.cause
    assert "running sum" in lasts.remedy
    assert found["reset-never-fires"].severity == "clear"


def test_the_audit_finds_a_reset_that_is_never_called():
    class UncalledQuantizer(AveragedQuantizer):
        def reset(self, z):
            pass

    found = vqlib.audit(UncalledQuantizer, ranks=False)
    assert found["reset-never-fires"].severity == "critical"
    assert found["reset-does-not-survive"].severity == "not applicable"


def test_the_watch_finds_a_reset_that_the_same_step_overwrites():
    found = vqlib.diagnose(collapsed(AveragedQuantizer(early=True)))
    never, collapse = found["reset-never-fires"], found["codebook-collapse"]
    assert never.severity == "critical" and "own threshold" in never.cause
    assert collapse.severity == "critical" and "turn on" not in collapse.remedy


def test_a_reset_that_acts_is_seen():
    found = vqlib.diagnose(collapsed(AveragedQuantizer()))
    assert found["reset-never-fires"].severity == "clear"
    assert "turn on" not in found["codebook-collapse"].remedy


@pytest.mark.parametrize("early", [False, True])
def test_a_layer_with_counts_whose_reset_cannot_be_examined_is_not_healthy(early):
    layer = lambda: AveragedQuantizer(1e-30, early, (None, "cluster_size"))  # noqa: E731
    found = vqlib.audit(layer, ranks=False)
    assert found["reset-never-fires"].severity == "unknown"
    assert found.verdict == "undecided"


def test_what_passed_without_a_reset_is_told_from_a_table():
    steps = range(1, 401)
    table = {"step": steps, "used_codes": [40 if s < 30 else 5 for s in steps], "resets": 0}
    known = {"codebook_size": 64, "tokens_per_step": 256, "dead_code_threshold": 2, "decay": 0.99}
    never = vqlib.diagnose(table, **known)["reset-never-fires"]
    assert "371 steps" in never.cause and "needs 69" not in never.cause
    short = {name: list(values)[:80] for name, values in table.items() if name != "resets"}
    never = vqlib.diagnose(short | {"resets": 0}, **known)["reset-never-fires"]
    assert "needs 69 steps" in never.cause


class ImpatientQuantizer(AveragedQuantizer):
    """It also resets codes whose tally of uses, over all steps so far, is low; it never ends."""

    def __init__(self, counts="embedding_count"):
        super().__init__(names=(None, counts))
        self.register_buffer("uses", torch.zeros(SIZE))
        self.steps = 0

    def forward(self, z):
        output = super().forward(z)
        self.uses += torch.bincount(output[1].flatten(), minlength=SIZE)
        self.steps += 1
        return output

    def reset(self, z):
        dead = self.uses < 0.05 * self.steps
        near = z[torch.randint(len(z), (int(dead.sum()),))]
        self.codebook[dead] = near + torch.randn_like(near)  # so far that nothing chooses it
        self.held[dead], self.uses[dead] = 4.0, 1.0
        self.sums[dead] = self.codebook[dead] * 4


@pytest.mark.parametrize("counts", ["embedding_count", "usage_count", "ema_count"])
def test_where_resets_were_seen_nobody_is_told_to_turn_them_on(counts):
    found = vqlib.diagnose(collapsed(ImpatientQuantizer(counts)))
    assert found["reset-churn"].severity == "critical"
    collapse = found["codebook-collapse"]
    assert collapse.severity == "critical" and "turn on" not in collapse.remedy
    assert "the resets do not keep up" in collapse.cause
