"""The two gradients at a quantizer's input: measured exactly, and without changing a bit."""

import gc
import math
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

import vqlib
from tests.watching.watched_models import Autoencoder, batch, train
from vqlib.watching.balance import Balance

K, D = 32, 16
COLUMN = "commit_gradient_ratio"


class Straight(nn.Module):
    """A straight-through quantizer behind a scaling; its loss is a sum, weighted."""

    def __init__(self, scale=2.0, weight=3.0):
        super().__init__()
        self.scale, self.weight, self.embedding = scale, weight, nn.Embedding(K, D)

    def forward(self, z):
        x = self.scale * z
        indices = torch.cdist(x, self.embedding.weight).argmin(-1)
        codes = self.embedding(indices).detach()
        loss = self.weight * (codes - x).square().sum()
        return x + (codes - x).detach(), indices, loss


ADAPTER = vqlib.Adapter(
    indices=lambda module, output: output[1], codebook=lambda module: module.embedding.weight
)


def ours(**changes):
    torch.manual_seed(0)
    reset = vqlib.DeadCodeReset(threshold=0.5)
    return Autoencoder(vqlib.NormEMAQuantizer(K, D, reset=reset, **changes))


def ratios(model, steps=20, adapters=None, loop=train, **more):
    with vqlib.watch(model, adapters=adapters, **more) as w:
        loop(model, steps)
    return w.history.set_index("step")[COLUMN].dropna()


def z_and_task(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(20, D, generator=generator) for _ in range(2))


@pytest.mark.parametrize("scaler", [1.0, 1024.0])
@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_the_ratio_is_that_of_the_two_gradients(weight, scaler):
    q = Straight(scale=2.0, weight=3.0)
    z, task = z_and_task()
    z = z.requires_grad_() * 1.0
    quantized, indices, loss = q(z)
    balance = Balance.of(z, quantized, loss)
    ((quantized * task).sum() + weight * loss).mul(scaler).backward()
    own = weight * 3.0 * 2 * (2.0 * z - q.embedding(indices)) * 2.0
    expected = float((own.norm() / (2.0 * task).norm()).detach())
    assert balance.norms.ratio() == pytest.approx(expected, rel=1e-5)


def test_gradients_that_come_in_two_passes_count_together():
    q = Straight()
    z, task = z_and_task()
    z = z.requires_grad_() * 1.0
    one, two = q(z), q(z)
    first, second = (Balance.of(z, o[0], o[2]) for o in (one, two))
    ((one[0] * task).sum() + one[2]).backward(retain_graph=True)
    two[2].backward(retain_graph=True)
    assert math.isnan(second.norms.ratio())  # so far the loss alone
    (two[0] * task).sum().backward()
    assert second.norms.ratio() == pytest.approx(first.norms.ratio(), rel=1e-6)


def test_a_level_of_a_residual_quantizer_sees_its_own_loss_alone():
    """What later levels send back to the first one's input is none of its output's."""
    torch.manual_seed(0)
    levels = [Straight(1.0, 1.0), Straight(1.0, 50.0)]
    z, task = z_and_task()
    z = z.requires_grad_() * 1.0
    first = levels[0](z)
    second = levels[1](z - first[0].detach())
    balance = Balance.of(z, first[0], first[2])
    (((first[0] + second[0]) * task).sum() + first[2] + second[2]).backward()
    own = 2 * (z - levels[0].embedding(first[1]))
    assert balance.norms.ratio() == pytest.approx(
        float((own.norm() / task.norm()).detach()), rel=1e-5
    )


def test_a_watch_measures_it_now_and_then():
    assert ratios(ours()).index.tolist() == [10, 20]
    assert ratios(ours(), every=4).index.tolist() == [12]
    assert ratios(ours(), steps=50, every=25).index.tolist() == [25, 50]
    found = ratios(ours(beta=25.0)) / ratios(ours(beta=0.25))
    assert found.iloc[0] > 10


def test_a_watch_of_levels():
    torch.manual_seed(0)
    model = Autoencoder(ResidualVQ(dim=D, codebook_size=K, num_quantizers=2))
    with vqlib.watch(model) as w:
        train(model, 10)
    assert len(w.layers) == 2
    assert all(h[COLUMN].notna().tolist() == [False] * 9 + [True] for h in w.histories.values())


def test_it_can_be_read_between_forward_and_backward():
    model = ours()
    with vqlib.watch(model) as w:
        train(model, 9)
        decoded, output = model(batch(9))
        assert w.history[COLUMN].isna().all()
        (decoded.square().mean() + output.loss).backward()
        assert w.history[COLUMN].notna().tolist() == [False] * 9 + [True]


# --- where it cannot be seen ---


class Checkpointed(Autoencoder):
    reentrant = False

    def forward(self, x):
        output = checkpoint(self.quantizer, self.encoder(x), use_reentrant=self.reentrant)
        return self.decoder(output[0]), output


class Noisy(torch.autograd.Function):
    """Counts how often its gradient is computed, which one may not do behind its back."""

    calls = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Noisy.calls += 1
        return gradient


class Custom(Straight):
    def forward(self, z):
        return super().forward(Noisy.apply(z))


def without_gradients(model, steps):
    with torch.no_grad():
        for step in range(steps):
            model(batch(step))


def loss_left_out(model, steps):
    for step in range(steps):
        model(batch(step))[0].square().mean().backward()


def frozen():
    model = ours()
    model.encoder.requires_grad_(False)
    return model


UNSEEN = {
    "no gradients": (ours, without_gradients),
    "no backward pass": (ours, lambda model, steps: [model(batch(s)) for s in range(steps)]),
    "a loss that is left out": (ours, loss_left_out),
    "a frozen encoder": (frozen, train),
    "checkpointing": (lambda: Checkpointed(Straight()), train),
    "compiled": (lambda: torch.compile(Autoencoder(Straight()), backend="aot_eager"), train),
    "a function of Python's": (lambda: Autoencoder(Custom()), train),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_is_not_seen_stays_unknown(name):
    build, loop = UNSEEN[name]
    Noisy.calls = 0
    assert ratios(build(), 10, adapters={Straight: ADAPTER}, loop=loop).empty
    assert Noisy.calls in (0, 10)  # once a step


def test_a_hook_of_the_users_is_not_called_once_more():
    seen = []

    class Hooked(Autoencoder):
        def forward(self, x):
            z = self.encoder(x)
            output = self.quantizer(z)
            for tensor in (z, output[0], output[2]):
                tensor.register_hook(lambda gradient: seen.append(gradient.shape))
            return self.decoder(output[0]), output

    assert ratios(Hooked(Straight()), 10, adapters={Straight: ADAPTER}).empty
    assert len(seen) == 30


def test_an_error_in_it_does_not_reach_the_training(monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("not here")

    monkeypatch.setattr(torch.autograd, "grad", fails)
    assert ratios(ours(), 10).empty


# --- it changes nothing ---


def accumulated(model, steps):
    """Two backward passes a step of the optimizer, and scaled as mixed precision scales them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for step in range(steps):
        decoded, output = model(batch(step))
        loss = (decoded - batch(step)).square().mean()
        loss.mul(64).backward(retain_graph=True)
        output[2].sum().mul(64).backward()
        if step % 2:
            for p in model.parameters():
                p.grad = None if p.grad is None else p.grad / 64
            optimizer.step()
            optimizer.zero_grad()


def in_bfloat16(model, steps):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        accumulated(model, steps)


def theirs(**changes):
    torch.manual_seed(0)
    return Autoencoder(VectorQuantize(dim=D, codebook_size=K, kmeans_init=True, **changes))


@pytest.mark.parametrize("loop", [train, accumulated, in_bfloat16])
@pytest.mark.parametrize(
    "build",
    [
        ours,
        theirs,
        lambda: theirs(use_cosine_sim=True),
        lambda: theirs(rotation_trick=True),
        lambda: theirs(learnable_codebook=True, ema_update=False),
        lambda: theirs(codebook_dim=4),
    ],
    ids=["ours", "theirs", "cosine", "rotation", "learnable", "projected"],
)
def test_weights_and_gradients_stay_the_same_to_the_bit(build, loop):
    states = []
    for watched in (False, True):
        model = build()
        torch.manual_seed(1)
        if watched:
            assert len(ratios(model, 20, loop=loop)) == 2
        else:
            loop(model, 20)
        states.append(model.state_dict() | {"random": torch.get_rng_state()})
    plain, seen = states
    assert plain.keys() == seen.keys()
    assert all(torch.equal(v, seen[k]) for k, v in plain.items() if isinstance(v, torch.Tensor))


def test_a_kept_gradient_is_the_same():
    kept = []
    for measured in (False, True):
        torch.manual_seed(0)
        q = Straight()
        z, task = z_and_task()
        z = z.requires_grad_() * 1.0
        z.retain_grad()
        quantized, _, loss = q(z)
        balance = Balance.of(z, quantized, loss) if measured else None
        ((quantized * task).sum() + loss).backward()
        kept.append(z.grad)
    assert balance is None and torch.equal(*kept)


def test_a_gradient_kept_from_later_on_is_the_same():
    kept = []
    for measured in (False, True):
        torch.manual_seed(0)
        q, (z, task) = Straight(), z_and_task()
        z = z.requires_grad_() * 1.0
        quantized, _, loss = q(z)
        balance = Balance.of(z, quantized, loss) if measured else None
        quantized.retain_grad()
        z.retain_grad()
        ((quantized * task).sum() + loss).backward()
        kept.append(torch.stack([z.grad, quantized.grad]))
    assert math.isnan(balance.norms.ratio()) and torch.equal(*kept)


def test_training_by_vqlib_is_the_same_with_and_without_it(monkeypatch):
    from tests.training.tiny_training import tiny

    with_it = vqlib.train(tiny(steps=20), progress=False)
    monkeypatch.setattr(Balance, "of", classmethod(lambda cls, *parts: None))
    without = vqlib.train(tiny(steps=20), progress=False)
    assert with_it.history[COLUMN].notna().sum() == 2 and without.history[COLUMN].isna().all()
    pairs = zip(
        with_it.model.state_dict().values(), without.model.state_dict().values(), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor))
    same = with_it.history.drop(columns=COLUMN), without.history.drop(columns=COLUMN)
    assert same[0].equals(same[1])


def test_a_graph_is_not_held_longer_than_it_must_be():
    model, alive = ours(), []
    with vqlib.watch(model):
        for step in range(25):
            x = F.relu(batch(step))
            alive.append(weakref.ref(x))
            decoded, output = model(x)
            if step % 2:
                (decoded.square().mean() + output.loss).backward()
            del x, decoded, output
            gc.collect()
            assert sum(r() is not None for r in alive[:-1]) == 0
