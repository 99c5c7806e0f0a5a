"""Each intervention changes what it says, against a formula of its own, and nothing else."""

import pytest
import torch
from torch.nn import functional as F

from vqlib import NormEMAQuantizer
from vqlib.quantization.interventions import INTERVENTIONS, SWAP_AT, leaders
from vqlib.quantization.variants import named

K, D, N, DECAY = 20, 6, 64, 0.8


def batches(n, seed=0, tokens=N):
    """Unit inputs (n, tokens, D) around a few slowly turning directions, so that codes die."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(5, D, generator=generator)
    for _ in range(n):
        centers = centers + 0.1 * torch.randn(5, D, generator=generator)
        noise = 0.2 * torch.randn(tokens, D, generator=generator)
        chosen = torch.randint(5, (tokens,), generator=generator)
        yield F.normalize(centers[chosen] + noise, dim=-1)


def pair(name, steps, **settings):
    """(changed, sound) after the same ``steps`` batches."""
    both = [cls(K, D, DECAY, seed=1, **settings) for cls in (named(name), NormEMAQuantizer)]
    for x in batches(steps):
        for q in both:
            q(x)
    return both


def one_step(name):
    """(codebook before, codebook after, sound codebook after, inputs, their codes)."""
    q, sound = named(name)(K, D, DECAY, seed=1), NormEMAQuantizer(K, D, DECAY, seed=1)
    *warm, x = batches(6)
    for batch in warm:
        q(batch)
    sound.load_state_dict(q.state_dict(), strict=False)
    before = q.codebook.clone()
    codes = q(x).indices
    sound(x)
    return before, q.codebook, sound.codebook, x, codes


def unused(codes):
    rest = torch.bincount(codes, minlength=K) == 0
    assert 0 < rest.sum() < K
    return rest


@pytest.mark.parametrize("name", ["random-counts", "zeroed-counts"])
def test_changed_counts_steer_nothing(name):
    changed, sound = pair(name, 12)
    assert torch.equal(changed.codebook, sound.codebook)
    assert not torch.equal(changed.cluster_size, sound.cluster_size)


def test_zeroed_counts_are_zero_and_random_ones_average_the_share():
    assert pair("zeroed-counts", 2)[0].cluster_size.count_nonzero() == 0
    random = pair("random-counts", 2)[0].cluster_size
    assert random.min() >= 0 and random.mean() == pytest.approx(N / K, rel=0.5)


def test_leaders_are_a_tenth_and_come_in_order():
    assert leaders(torch.tensor([1.0] * 18 + [9.0, 5.0])).tolist() == [18, 19]
    assert leaders(torch.tensor([3.0, 4.0])).tolist() == [1]


def test_held_leaders_stay_and_the_others_move_as_ever():
    q = named("leaders-held")(K, D, DECAY, seed=1)
    *warm, x = batches(6)
    for batch in warm:
        q(batch)
    before, sound = q.codebook.clone(), NormEMAQuantizer(K, D, DECAY)
    sound.load_state_dict(q.state_dict())
    q(x)
    sound(x)
    held = torch.zeros(K, dtype=torch.bool)
    held[sound.cluster_size.topk(K // 10).indices] = True
    assert torch.equal(q.codebook[held], before[held])
    assert not torch.equal(sound.codebook[held], before[held])
    assert torch.equal(q.codebook[~held], sound.codebook[~held])


def test_a_swap_exchanges_vectors_once_and_leaves_the_counts():
    early, sound = pair("swapped-places", SWAP_AT - 1)
    assert torch.equal(early.codebook, sound.codebook)
    swapped, sound = pair("swapped-places", SWAP_AT)
    order = sound.cluster_size.argsort(descending=True, stable=True)
    assert torch.equal(swapped.cluster_size, sound.cluster_size)
    assert torch.equal(swapped.codebook[order[0]], sound.codebook[leaders(-sound.cluster_size)[0]])
    places = {tuple(row) for row in swapped.codebook.tolist()}
    assert places == {tuple(row) for row in sound.codebook.tolist()}
    changed = (swapped.codebook != sound.codebook).any(dim=-1)
    assert changed.sum() == 2 * (K // 10)


def test_a_swap_renames_codes_and_changes_no_use():
    swapped, sound = pair("swapped-places", SWAP_AT)
    for x in batches(5, seed=3):
        uses = [torch.bincount(q(x).indices, minlength=K).sort().values for q in (swapped, sound)]
        assert torch.equal(*uses)


def test_unused_codes_share_the_mean_movement():
    before, after, sound, _, codes = one_step("unused-drift")
    rest = unused(codes)
    moves = [sound[k] - before[k] for k in range(K) if not rest[k]]
    shift = sum(moves) / len(moves)
    for k in rest.nonzero().flatten():
        expected = (before[k] + shift) / (before[k] + shift).norm()
        torch.testing.assert_close(after[k], expected)
    assert torch.equal(after[~rest], sound[~rest])


def test_unused_codes_are_pulled_to_their_nearest_input():
    before, after, sound, x, codes = one_step("unused-pulled")
    rest = unused(codes)
    for k in rest.nonzero().flatten():
        closest = min(x, key=lambda row, k=k: float((row - before[k]).norm()))
        expected = DECAY * before[k] + (1 - DECAY) * closest
        torch.testing.assert_close(after[k], expected / expected.norm())
    assert torch.equal(after[~rest], sound[~rest])


def test_a_count_weighted_code_is_the_average_of_all_its_inputs():
    q = named("count-weighted")(K, D, DECAY, seed=1)
    first, *later = batches(6)
    start, counts = NormEMAQuantizer(K, D, DECAY, seed=1)._start(first)
    sums = start * counts[:, None]
    for x in (first, *later):
        before, codes = q.codebook.clone(), q(x).indices
        before = start if x is first else before
        sums = DECAY * sums
        for row, code in zip(x, codes, strict=True):
            sums[code] += (1 - DECAY) * row
        for k in range(K):
            hit = bool((codes == k).any())
            expected = sums[k] / sums[k].norm() if hit else before[k]
            torch.testing.assert_close(q.codebook[k], expected, atol=1e-5, rtol=1e-4)


def test_hits_weigh_in_a_count_weighted_code():
    def turned(name, hits):
        q = named(name)(1, 2, 0.9, kmeans_init=False)
        q.codebook.copy_(torch.tensor([[1.0, 0.0]]))
        q(torch.tensor([[1.0, 0.0]]))
        q(torch.tensor([[0.0, 1.0]]).expand(hits, 2))
        return float(q.codebook[0, 1])

    assert turned("count-weighted", 1000) > 5 * turned("count-weighted", 1)
    assert turned(None, 1000) == pytest.approx(turned(None, 1))


def test_a_count_weighted_codebook_goes_on_from_its_state():
    q = pair("count-weighted", 4)[0]
    copy = named("count-weighted")(K, D, DECAY)
    copy.load_state_dict(q.state_dict())
    for x in batches(3, seed=5):
        assert torch.equal(q(x).indices, copy(x).indices)
    assert torch.equal(q.codebook, copy.codebook)


def test_gradient_codes_descend_the_codebook_loss():
    decay = 0.2  # fast, so that the busiest codes reach the limit
    q = named("gradient-codebook")(K, D, decay, seed=1)
    *warm, x = batches(6)
    for batch in warm:
        q(batch)
    before = q.codebook.clone().requires_grad_()
    codes = q(x).indices
    ((x - before[codes]) ** 2).sum().backward()
    rate = (1 - decay) * K / N
    bins = torch.bincount(codes, minlength=K)
    assert (rate * bins > 1).any()
    free = rate * bins <= 1  # beyond, the step would pass the mean of the inputs
    stepped = F.normalize((before - rate / 2 * before.grad).detach(), dim=-1)
    torch.testing.assert_close(q.codebook[free], stepped[free])
    means = F.normalize(torch.stack([x[codes == k].mean(dim=0) for k in range(K)]), dim=-1)
    torch.testing.assert_close(q.codebook[~free], means[~free])
    assert torch.equal(q.codebook[bins == 0], before[bins == 0])


def test_a_random_start_takes_inputs_as_they_are():
    (x,) = batches(1)
    codebook, counts = named("random-inputs")(K, D)._start(x)
    rows = {tuple(row) for row in x.tolist()}
    assert len({tuple(row) for row in codebook.tolist()} & rows) == K
    assert counts.sum() == N


def test_an_unbalanced_start_lies_in_one_corner():
    (x,) = batches(1, tokens=400)
    spread = {}
    for name in ("unbalanced-start", None):
        codebook, counts = named(name)(K, D, seed=2)._start(x)
        spread[name] = float((codebook @ codebook.T).min())
        assert counts.sum() == 400
    assert spread["unbalanced-start"] > spread[None] + 0.5


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_every_intervention_keeps_a_unit_codebook_and_evaluates_without_change(name):
    q = pair(name, SWAP_AT + 2)[0]
    torch.testing.assert_close(q.codebook.norm(dim=-1), torch.ones(K))
    state = {key: value.clone() for key, value in q.state_dict().items()}
    q.eval()(next(batches(1, seed=9)))
    assert all(torch.equal(value, q.state_dict()[key]) for key, value in state.items())
