"""The audit of large codebooks: few comparisons, the same answers, and what it does not ask."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import vqlib
from vqlib.diagnosis.audit import bench, donors, starting
from vqlib.quantization.faults import FAULTS
from vqlib.watching.adapters import NORM_EMA

SIZE, DIM = 2048, 16
MANY = 1024


def layer(kind=vqlib.NormEMAQuantizer, size=SIZE, **more):
    reset = vqlib.DeadCodeReset(threshold=1.0)
    return kind(size, DIM, **({"decay": 0.9, "reset": reset} | more))


class SlowToResetQuantizer(torch.nn.Module):
    """Moving averages, and a reset whose threshold has no name; a code needs 99 steps to die."""

    def __init__(self):
        super().__init__()
        self.register_buffer("codebook", torch.randn(MANY, DIM))
        self.register_buffer("cluster_size", torch.full((MANY,), 20.0))
        self.register_buffer("sums", 20 * self.codebook)

    def forward(self, z):
        flat = z.reshape(-1, DIM)
        indices = torch.cdist(flat, self.codebook).argmin(-1)
        quantized = self.codebook[indices].view_as(z)
        if self.training:
            self.cluster_size.lerp_(torch.bincount(indices, minlength=MANY).float(), 0.03)
            self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, indices, flat), 0.03)
            dead = self.cluster_size < 1
            self.sums[dead] = 20 * flat[torch.randint(len(flat), (int(dead.sum()),))]
            self.cluster_size[dead] = 20.0
            self.codebook.copy_(self.sums / self.cluster_size[:, None])
        return quantized, indices.view(z.shape[:-1]), F.mse_loss(z, quantized)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that an operation gave."""

    seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if isinstance(output, torch.Tensor):
            self.seen = max(self.seen, output.numel())
        return output


def test_the_work_on_a_large_codebook_is_bounded(monkeypatch):
    size, fed, call = 4096, [], bench.Bench.call

    def counted(self, module, z, **more):
        fed.append(len(z))
        return call(self, module, z, **more)

    monkeypatch.setattr(bench.Bench, "call", counted)
    with Largest() as largest:
        found = vqlib.audit(lambda: layer(size=size), ranks=False)
    assert not found.ids("critical", "warning") and "healthy" in found.ids()
    assert sum(fed) < 30 * size and len(fed) < 150
    assert largest.seen < size * size


@pytest.mark.parametrize(
    ("fault", "question"),
    [
        ("forgets-the-count", "reset-does-not-survive"),
        ("undone-by-the-average", "reset-does-not-survive"),
        ("draws-with-replacement", "duplicate-codes"),
        ("waits-for-zero", "reset-never-fires"),
        ("counts-in-evaluation", "evaluation-changes-counts"),
    ],
)
def test_faults_are_found_in_a_large_codebook(fault, question):
    found = vqlib.audit(lambda: layer(FAULTS[fault]), ranks=False)
    assert found.ids("critical", "warning") == {question}


def exploding(kind, size: int, *, resets: bool):
    subject = bench.Bench(layer(kind, size=size), NORM_EMA, DIM, True, None, 0)
    with bench.own_randomness(0, subject.device):
        _, steps = starting.narrow_start(subject, resets=resets)
        how = "" if resets else ", without its reset"
        return starting.first_step_explosion(subject, steps, how)


def test_an_explosion_is_looked_for_where_a_reset_moves_every_idle_code():
    answer = exploding(vqlib.NormEMAQuantizer, SIZE, resets=True)
    assert answer.severity == "clear" and "without its reset" in answer.evidence[0].window


@pytest.mark.parametrize(
    ("kind", "severity"),
    [(vqlib.NormEMAQuantizer, "clear"), (FAULTS["inconsistent-start"], "critical")],
)
def test_without_its_reset_an_explosion_shows(kind, severity):
    assert exploding(kind, 256, resets=False).severity == severity


def test_a_reset_that_takes_long_is_waited_for_in_a_large_codebook():
    found = vqlib.audit(SlowToResetQuantizer, ranks=False)
    assert found["reset-never-fires"].severity == "clear"


def test_what_takes_too_long_is_not_asked_and_said(monkeypatch):
    monkeypatch.setattr(bench, "CHEAP", 10**5)
    monkeypatch.setattr(bench, "LARGEST", 10**5)
    monkeypatch.setattr(donors, "COMPARED", 10**4)
    monkeypatch.setattr(donors, "ASIDE", 10**4)
    audit = lambda **more: vqlib.audit(  # noqa: E731
        lambda: layer(size=512), ranks=False, **more
    )
    cold = audit(tokens=2**12)["cold-start"]
    assert cold.severity == "unknown" and "4096 tokens" in cold.cause
    # a threshold is held against the uniform share without a step
    assert audit(tokens=2**12)["threshold-above-share"].severity == "clear"
    assert audit(tokens=256)["threshold-above-share"].severity == "warning"
    hidden = vqlib.audit(SlowToResetQuantizer, ranks=False)["threshold-above-share"]
    assert hidden.severity == "unknown" and "too long" in hidden.cause


def test_codes_put_on_an_input_are_told_from_codes_beside_one():
    draws = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(300, 4, generator=draws)
    codes = torch.cat([z[:50] * 0.5, z[:50] * 0.5 + 1e-3, torch.randn(50, 4, generator=draws)])
    gaps = torch.cdist(F.normalize(codes.double(), dim=-1), F.normalize(z.double(), dim=-1))
    assert torch.equal(bench._landed(codes, z), (gaps < bench.LANDED).any(dim=-1))
    assert bench._landed(codes, z).sum() == 50


def test_tokens_between_others_stay_in_their_cell():
    b = bench.Bench(layer(), vqlib.watching.adapters.NORM_EMA, None, True, None, 0)
    z = b.ball(b.direction(), 20)
    tokens = b.between(z, 500)
    assert len(tokens.unique(dim=0)) == 500
    assert torch.equal(b.between(z[:1], 500), z[:1])
    codes = torch.cat([z.mean(dim=0, keepdim=True), -z])
    assert not torch.cdist(tokens, codes).argmin(-1).any()
