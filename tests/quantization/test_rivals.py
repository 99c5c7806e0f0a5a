"""Each rival does what it says, learns on, and keeps the rules of the house."""

import pytest
import torch
from torch.nn import functional as F

from tests.quantization.test_interventions import batches
from vqlib import DeadCodeReset, NormEMAQuantizer
from vqlib.quantization.quantizer import on_sphere
from vqlib.quantization.rivals import RIVALS, Deferred, Gumbel, gaussian_distance
from vqlib.quantization.search import nearest
from vqlib.quantization.variants import named

K, D, N, DECAY = 20, 6, 64, 0.8
RESET = DeadCodeReset(threshold=0.1, relative=True, refill=1.0)


def made(name, **settings):
    settings = {"reset": RESET} | settings if "restart" in name or "split" in name else settings
    return named(name)(K, D, DECAY, seed=1, **settings)


def trained(name, steps=8):
    q = made(name)
    for x in batches(steps):
        q(x.clone().requires_grad_()).loss.backward()
    return q


def state(q):
    return {k: v.clone() for k, v in q.state_dict().items()}


@pytest.mark.parametrize("name", RIVALS)
def test_evaluation_changes_nothing_and_takes_the_nearest_code(name):
    q = trained(name).eval()
    before, x = state(q), next(batches(1, seed=5))
    out = q(x)
    assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())
    assert torch.equal(out.indices, nearest(on_sphere(x), q.codebook))


@pytest.mark.parametrize("name", RIVALS)
def test_a_seed_gives_the_same_bits_and_so_does_a_stored_state(name):
    first, second = trained(name), trained(name)
    assert all(torch.equal(v, state(second)[k]) for k, v in first.state_dict().items())
    resumed = made(name)
    resumed.load_state_dict(first.state_dict())
    x = next(batches(1, seed=7))
    assert torch.equal(first(x).indices, resumed(x).indices)
    assert torch.equal(first.codebook, resumed.codebook)


@pytest.mark.parametrize("name", RIVALS)
def test_codes_stay_on_the_sphere_and_the_gradient_is_finite(name):
    q = trained(name)
    z = next(batches(1, seed=3)).requires_grad_()
    out = q(z)
    (out.loss + out.quantized.square().sum()).backward()
    assert z.grad.isfinite().all()
    assert torch.allclose(q.codebook.norm(dim=-1), torch.ones(K), atol=1e-4)


def starving(name):
    """A rival after 30 steps in one place, that place, and the codebook one step before."""
    q, place = made(name), F.normalize(torch.ones(D), dim=0)
    generator = torch.Generator().manual_seed(0)

    def ball():
        return F.normalize(place + 0.05 * torch.randn(N, D, generator=generator), dim=-1)

    for x in batches(3):
        q(x)
    for _ in range(30):
        before = q.codebook.detach().clone()
        q(ball())
    return q, place, before


@pytest.mark.parametrize("name", ["kmeans-restart", "splits-most-used", "anchored"])
def test_codes_without_a_hit_come_to_where_the_inputs_are(name):
    q, place, _ = starving(name)
    plain = NormEMAQuantizer(K, D, DECAY, seed=1)
    for x in batches(3):
        plain(x)
    assert ((q.codebook @ place) > 0.9).float().mean() >= 0.9
    assert ((plain.codebook @ place) > 0.9).float().mean() < 0.5


def test_twins_share_the_count_of_the_code_that_was_split():
    q = made("splits-most-used")
    for x in batches(4):
        q(x)
    q.cluster_size.fill_(5.0)
    q.cluster_size[3], q.cluster_size[7] = 40.0, 0.0
    before = q.codebook.clone()
    reset = q._reset(4, on_sphere(x), nearest(x, q.codebook), torch.full((K,), N / K))
    assert reset.codes.tolist() == [7]
    assert q.cluster_size[3] == q.cluster_size[7] == 20.0
    assert (before[3] - q.codebook[7]).norm() == pytest.approx(0.01, rel=0.2)


def test_memory_is_lost_at_every_fiftieth_step_alone():
    q = made("memory-reset")
    for step, x in enumerate(batches(50), start=1):
        indices = q(x).indices
        forgot = torch.equal(q.cluster_size, torch.bincount(indices, minlength=K).float())
        assert forgot == (step in (1, 50))  # the first begins with its own counts
    assert q.decay == DECAY


def test_unused_codes_drift_with_their_neighbours():
    q = made("drift-kernel")
    *warm, x = batches(6)
    for batch in warm:
        q(batch)
    before = q.codebook.clone()
    unused = torch.bincount(q(x).indices, minlength=K) == 0
    assert unused.any() and not torch.equal(before[unused], q.codebook[unused])
    near = (before[unused] @ before[~unused].T).argmax(-1)
    moved, led = (q.codebook - before)[unused], (q.codebook - before)[~unused][near]
    assert F.cosine_similarity(moved, led, dim=-1).median() > 0.3


def test_deferred_passes_inputs_through_and_then_starts_by_k_means(monkeypatch):
    monkeypatch.setattr(Deferred, "WAIT", 3)
    q = made("deferred")
    *first, last = batches(4)
    for x in first:
        out = q(x.clone().requires_grad_())
        assert torch.equal(out.quantized, on_sphere(x)) and out.loss == 0 and not q.initialized
    q(last)
    assert q.initialized and q.waited == 3


def test_balanced_assigns_more_evenly_than_the_nearest_code():
    q = made("balanced")
    for x in batches(5):
        q(x)
    x = on_sphere(next(batches(1, seed=9)))
    balanced, near = (
        torch.bincount(i, minlength=K) for i in (q._nearest(x), nearest(x, q.codebook))
    )
    assert (balanced > 0).sum() > (near > 0).sum() and balanced.max() < near.max()


def test_the_entropy_term_rewards_even_and_sure_choices():
    q = made("entropy-loss")
    spread, one_place = q.codebook.clone(), q.codebook[:1].repeat(K, 1)
    losses = []
    for x in (spread, one_place):
        fresh = made("entropy-loss", kmeans_init=False)
        losses.append(float(fresh(x).loss))
    assert losses[0] < losses[1]


def test_the_distance_of_gaussians_is_that_of_the_formula():
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(4000, 3, generator=generator) * torch.tensor([1.0, 2.0, 3.0])
    b = torch.randn(4000, 3, generator=generator) * torch.tensor([2.0, 2.0, 1.0]) + 1
    # axis-aligned: |m - m'|^2 + sum (s - s')^2
    assert float(gaussian_distance(a, b, 1e-6)) == pytest.approx(3 + 1 + 0 + 4, rel=0.05)
    assert float(gaussian_distance(a, a, 1e-6)) == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("name", ["matched-moments", "gumbel"])
def test_learned_codes_have_a_gradient_and_no_average(name):
    q = made(name)
    x = next(batches(1))
    out = q(x.clone().requires_grad_())
    (out.loss + (out.quantized - x).square().sum()).backward()
    assert q.codebook.grad.abs().sum() > 0
    before = q.codebook.detach().clone()
    q(next(batches(1, seed=4)))
    assert torch.allclose(before, q.codebook, atol=1e-6)


def test_gumbels_temperature_falls():
    q = made("gumbel")
    x = next(batches(1))
    assert q._prepare(on_sphere(x)) == Gumbel.FIRST
    q.steps.fill_(Gumbel.STEPS)
    assert q._prepare(on_sphere(x)) == pytest.approx(Gumbel.LAST)
