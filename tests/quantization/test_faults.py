"""Each fault does what it is said to do, and nothing else; each can be trained."""

import math
import re

import pytest
import torch
from torch.nn import functional as F

from tests.training.tiny_training import same_bits, tiny
from vqlib import DeadCodeReset, NormEMAQuantizer, train
from vqlib.diagnosis.findings import IDS
from vqlib.quantization import usage
from vqlib.quantization.faults import EXPECTED, FAULTS

K, D = 32, 8


def make(name, reset="default", **settings):
    reset = DeadCodeReset() if reset == "default" else reset
    return FAULTS[name](K, D, **({"reset": reset} | settings))


def batch(seed, tokens=4 * K):
    return torch.randn(tokens, D, generator=torch.Generator().manual_seed(seed))


def one_place(seed, tokens=4 * K):
    return 0.1 * batch(seed, tokens) + F.one_hot(torch.tensor(0), D)


def starve(q, steps=40):
    """Train in all directions once, then in one place: the resets that happened."""
    q(batch(0))
    resets = []
    for step in range(steps):
        q(one_place(step))
        resets.append(q.last_reset)
    return resets


def test_each_fault_has_a_name_a_story_and_the_finding_it_must_lead_to():
    assert FAULTS.keys() == EXPECTED.keys()
    assert set(EXPECTED.values()) <= set(IDS)
    for name, fault in FAULTS.items():
        assert re.fullmatch("[a-z]+(-[a-z]+)+", name)
        assert "Seen" in fault.__doc__ or name == "ranks-draw-alone", name


@pytest.mark.parametrize(
    ("name", "threshold"), [*((name, 1.0) for name in FAULTS), ("inconsistent-start", 0.0)]
)
def test_each_fault_trains_and_stays_finite(name, threshold):
    run = train(tiny(variant=name, dead_code_threshold=threshold, steps=6), progress=False)
    assert type(run.model.quantizer) is FAULTS[name]
    assert run.history[["recon_loss", "commit_loss", "utilization"]].notna().all(axis=None)
    assert bool(run.model.quantizer.codebook.isfinite().all())


def test_a_code_whose_count_was_forgotten_is_reset_again_at_the_next_step():
    def twice(q):
        q(batch(0))
        step = 0
        while q.last_reset is None:
            q(one_place(step))
            step += 1
        first = q.last_reset.codes
        assert bool((q.cluster_size[first] < 1).all()) is isinstance(q, FAULTS["forgets-the-count"])
        q(-one_place(99))
        again = [] if q.last_reset is None else q.last_reset.codes
        return set(first.tolist()) & set(torch.as_tensor(again).tolist()), len(first)

    again, first = twice(make("forgets-the-count"))
    assert len(again) == first
    assert twice(NormEMAQuantizer(K, D, reset=DeadCodeReset()))[0] == set()


def test_a_reset_before_the_average_is_announced_and_changes_nothing():
    q, none = make("undone-by-the-average"), make("undone-by-the-average", reset=None)
    resets, silent = starve(q), starve(none)
    assert sum(r is not None for r in resets) > 10 and not any(silent)
    assert torch.equal(q.codebook, none.codebook)
    assert torch.equal(q.cluster_size, none.cluster_size)


def test_the_codes_of_running_sums_follow_their_inputs():
    q = make("undone-by-the-average", decay=0.5)
    q(batch(0))
    sums = q.sums.clone()
    x = F.normalize(batch(1), dim=-1)
    taken = q(batch(1)).indices
    hits = F.one_hot(taken, K).T.float() @ x
    expected = F.normalize(sums + hits, dim=-1)
    used = taken.bincount(minlength=K) > 0
    torch.testing.assert_close(q.codebook[used], expected[used])


def test_evaluation_lets_the_counts_of_unused_codes_fall():
    q = make("counts-in-evaluation")
    q(batch(0))
    counts, codes = q.cluster_size.clone(), q.codebook.clone()
    q.eval()
    used = torch.zeros(K, dtype=torch.bool)
    for step in range(20):
        used[q(one_place(step)).indices] = True
    assert torch.equal(q.codebook, codes)
    torch.testing.assert_close(q.cluster_size[~used], counts[~used] * 0.9**20)
    q.train()
    q(one_place(99))
    assert len(q.last_reset.codes) >= int((~used).sum())


def test_an_inconsistent_start_blows_up_codes_without_a_hit_and_only_those():
    q = make("inconsistent-start", reset=None)
    taken = q(one_place(0)).indices.bincount(minlength=K)
    norms = q.codebook.norm(dim=-1)
    assert norms[taken == 0].min() > 1e3 and norms[taken > 0].max() < 12
    assert norms.max() < 1e7


def test_codes_that_are_not_unit_are_compared_by_distance():
    q = make("inconsistent-start", reset=None)
    q.codebook.mul_(torch.rand(K, 1) * 3)
    x = F.normalize(batch(3), dim=-1)
    expected = torch.cdist(x, q.codebook).argmin(dim=-1)
    assert torch.equal(q.eval()(batch(3)).indices, expected)
    assert not torch.equal((x @ q.codebook.T).argmax(dim=-1), expected)


def test_a_reset_brings_an_exploded_code_back_for_good():
    q = make("inconsistent-start")
    q(one_place(0))
    codes = q.last_reset.codes
    place = q.codebook[codes]
    assert len(codes) > K // 2 and place.norm(dim=-1).max() < 1.001
    idle = q(-one_place(1)).indices.bincount(minlength=K)[codes] == 0
    assert int(idle.sum()) > 5
    torch.testing.assert_close(q.codebook[codes][idle], place[idle], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["ranks-draw-alone", "averages-twice"])
def test_alone_and_in_its_codes_it_is_the_sound_quantizer(name):
    q, sound = make(name), NormEMAQuantizer(K, D, reset=DeadCodeReset())
    assert any(starve(q)) and any(starve(sound))
    assert same_bits(
        {"c": q.codebook, "n": q.cluster_size}, {"c": sound.codebook, "n": sound.cluster_size}
    )


def test_unseeded_draws_depend_on_the_process_and_seeded_ones_do_not():
    def codes(fault, seed):
        torch.manual_seed(seed)
        q = fault(K, D, reset=DeadCodeReset())
        starve(q)
        return q.codebook

    with torch.random.fork_rng():
        unseeded = FAULTS["unseeded-draws"]
        assert torch.equal(codes(unseeded, 1), codes(unseeded, 1))
        assert not torch.equal(codes(unseeded, 1), codes(unseeded, 2))
        assert torch.equal(codes(NormEMAQuantizer, 1), codes(NormEMAQuantizer, 2))
    q = make("unseeded-draws")
    own = q.generator
    starve(q)
    assert q.generator is own


def test_a_cold_start_throws_away_codes_that_the_first_batch_used():
    cold, sound = make("cold-start"), NormEMAQuantizer(K, D, reset=DeadCodeReset())
    hits = cold(batch(0)).indices.bincount(minlength=K)
    sound(batch(0))
    dead = (0.1 * hits < 1).nonzero().flatten()
    assert torch.equal(cold.last_reset.codes, dead) and len(dead) > K // 2
    assert sound.last_reset is None


def test_drawing_with_replacement_makes_copies_where_the_sound_reset_makes_none():
    def copies(q):
        q(batch(0))
        found = 0
        for step in range(40):
            q(one_place(step))
            if q.last_reset is not None:
                found += len(q.last_reset.donors) - len(q.last_reset.donors.unique())
        return found

    sound = NormEMAQuantizer(K, D, reset=DeadCodeReset(donors="batch"))
    assert copies(sound) == 0
    assert copies(make("draws-with-replacement", reset=DeadCodeReset(donors="batch"))) > 0
    q = make("draws-with-replacement", reset=DeadCodeReset(0.5, every=3))
    assert (q.reset.threshold, q.reset.every) == (0.5, 3)  # all else is as it was


@pytest.mark.parametrize("tokens", [K, 4 * K, 40 * K])
def test_an_unreachable_threshold_is_so_at_any_batch(tokens):
    q = make("unreachable-threshold")
    assert q.reset.ceiling(K, tokens) == 0.5
    resets = 0
    for step in range(60):
        q(batch(step, tokens))
        resets += step >= 30 and q.last_reset is not None
    assert resets > 10
    assert make("unreachable-threshold", reset=None).reset is None


def test_what_waits_for_zero_waits():
    q = make("waits-for-zero")
    assert not any(starve(q, 60))
    assert usage.dead_codes(q.cluster_size, 1.0).numel() > K // 2
    q.cluster_size[3] = 0.0
    q(one_place(0))
    assert q.last_reset.codes.tolist() == [3]
    assert q.cluster_size[3] == 2.0


def test_a_loss_averaged_twice_falls_with_the_tokens():
    q, sound = make("averages-twice"), NormEMAQuantizer(K, D, reset=DeadCodeReset())
    expected = sound(batch(0)).loss.item() / (4 * K)
    assert math.isclose(q(batch(0)).loss.item(), expected, rel_tol=1e-6)


def test_of_what_passes_two_dimensions_the_rest_is_never_seen():
    q, z = make("passes-two-dimensions"), batch(0).requires_grad_()
    out = q(z)
    (out.quantized[:, 0].sum() + out.loss).backward()
    assert bool((q.codebook[:, :-2] == 0).all()) and bool((z.grad[:, :-2] == 0).all())
    assert usage.effective_rank(q.codebook) <= 2
    moved = torch.cat([batch(1)[:, :-2], batch(0)[:, -2:]], dim=1)
    assert torch.equal(q.eval()(moved).indices, q(batch(0)).indices)


def test_a_summed_loss_is_larger_by_the_features():
    q, sound = make("sums-its-loss"), NormEMAQuantizer(K, D, reset=DeadCodeReset())
    assert float(q(batch(0)).loss) == pytest.approx(D * float(sound(batch(0)).loss))
    assert torch.equal(q.codebook, sound.codebook)
