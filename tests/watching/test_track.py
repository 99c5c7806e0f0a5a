"""From what is seen of a codebook to rows."""

import itertools
import math

import pytest
import torch

from vqlib.quantization import usage
from vqlib.quantization.reset import DeadCodeReset
from vqlib.watching.columns import RANKED, looks, samples
from vqlib.watching.track import (
    HITS,
    VAL_SAMPLES,
    Evaluation,
    Seen,
    Track,
    grace,
    hits,
    look,
    rank,
    turned,
)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_hits(dtype):
    indices = torch.tensor([[0, 3], [3, 4]], dtype=dtype)
    bins = hits(indices, 5)
    assert bins[HITS].tolist() == [1, 0, 0, 2, 1] and bins.sum() == 4
    assert hits(indices[:0], 5)[HITS].tolist() == [0] * 5


def test_hits_outside():
    bins = hits(torch.tensor([-7, -2, -1, 0, 4, 5, 99]), 5)
    assert bins[HITS].tolist() == [1, 0, 0, 0, 1]
    assert (bins[0], bins[1], bins[-1]) == (2, 1, 2)


def test_a_row_turns_when_its_direction_changes():
    old = torch.randn(6, 8)
    new = old.clone()
    new[1] *= 0.1
    new[2] = torch.randn(8)
    new[3] += 0.05 * torch.randn(8)
    new[4] = 0
    old[5] = 0
    assert turned(old, new).tolist() == [False, False, True, True, False, False]
    tiny = torch.randn(1, 8) * 1e-18
    assert not turned(tiny, tiny * 0.8)


def test_grace_is_that_of_the_reset():
    settings = {"dead_code_threshold": 1.0, "reset_refill": 2.0, "decay": 0.9}
    assert grace(settings) == DeadCodeReset(threshold=1.0).grace(0.9) == 7
    assert grace(settings | {"reset_refill": 1.0}) == 1
    assert grace({"decay": 0.9}) == grace({"dead_code_threshold": 0.0, "decay": 0.9}) == 0


def seen(step: int, training: bool = True, **more) -> Seen:
    return Seen(step, training, hits(torch.tensor([0, 1, 1]), 4), **more)


def track(**changes) -> Track:
    settings = {"observed": False, "counted": True} | changes
    return Track("q", 4, {}, **({"every": 1, "window": 1} | settings))


def test_memory_stays_bounded():
    followed = track()
    for i in range(500):
        inputs = torch.full((3, 2), float(i))
        followed.add(seen(1, False, inputs=inputs, kept=torch.ones(3, dtype=torch.bool)))
    assert len(followed.val.sampled) < 2 * VAL_SAMPLES
    kept = [float(s.inputs[0, 0]) for s in followed.val.sampled]
    gaps = {b - a for a, b in itertools.pairwise(kept)}
    assert len(gaps) == 1 and kept[-1] > 450  # spread over the whole pass
    assert int(followed.val.counts.sum()) == 1500
    assert len(followed.pending) < 40


def test_evaluation_is_one_row_weighted_by_tokens():
    evaluation = Evaluation(7)
    for tokens, loss in ((1, 3.0), (3, 1.0)):
        counts = torch.tensor([tokens, 0])
        evaluation.add(seen(7, False, loss=torch.tensor(loss), change=torch.tensor(loss)), counts)
    row = evaluation.row()
    assert row["commit_loss"] == pytest.approx(1.5)
    assert row["window_tokens"] == 4 and evaluation.change == 3


def test_a_loss_of_exactly_zero_in_evaluation_is_none():
    evaluation = Evaluation(7)
    evaluation.add(seen(7, False, loss=torch.tensor(0.0)), torch.tensor([2, 2]))
    assert "commit_loss" not in evaluation.row()


def test_a_step_without_tokens_gives_no_row():
    followed = track()
    followed.add(Seen(1, True, hits(torch.tensor([-1, -1]), 4)))
    followed.add(seen(2))
    assert [row["step"] for row in followed.table()] == [2]


def test_steps_that_cannot_be_judged_leave_the_row_without_resets():
    followed = track(observed=True, every=2)
    nothing = torch.zeros(4, dtype=torch.bool)
    for step, reset in enumerate((None, nothing, nothing, nothing | True), start=1):
        followed.add(seen(step, reset=reset))
    first, second = followed.table()
    assert first["resets"] != first["resets"] and second["resets"] == 4


def test_look():
    codebook = torch.nn.functional.normalize(torch.randn(9, 16), dim=-1)
    codebook[3] = codebook[5]
    codebook[7] *= 40
    used = torch.ones(9)
    found = look(codebook, used, True)
    assert found == {"longest_code": pytest.approx(40, rel=1e-5), "duplicates": 1}
    codebook[:5] *= 1e6  # most codes are giants, and nobody uses them
    used[:5] = 0
    assert look(codebook, used, True)["longest_code"] == pytest.approx(1e6, rel=1e-5)
    assert math.isnan(look(codebook, used, False)["longest_code"])
    assert look(None, used, True) == {}
    many = look(torch.ones(8193, 1), torch.ones(8193), True)
    assert math.isnan(many["duplicates"]) and many["longest_code"] == 1


def test_steps_that_skip_a_level_do_not_count_in_its_tokens_per_step():
    track = Track("q", 4, {}, every=1, window=1, observed=False, counted=False)
    nothing = hits(torch.empty(0, dtype=torch.int64), 4)
    for step in range(1, 8):
        track.add(seen(step) if step % 3 == 1 else Seen(step, True, nothing))
    assert track.settings()["tokens_per_step"] == 3

    never = Track("q", 4, {}, every=1, window=1, observed=False, counted=False)
    never.add(Seen(1, True, nothing))
    assert "tokens_per_step" not in never.settings()


# --- ranks ---


def plane(n, dim=16, seed=0):
    """(n, D) points that vary in two of their dimensions."""
    points = torch.ones(n, dim)
    points[:, :2] = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return points


def test_a_row_now_and_then_tells_the_rank_of_the_inputs():
    track = Track("q", 4, {}, every=1, window=1, observed=False, counted=False)
    for step in range(1, 21):
        inputs = plane(100)
        track.add(Seen(step, True, hits(torch.tensor([0, 1]), 4), inputs=inputs))
    ranks = {row["step"]: row["encoder_rank"] for row in track.table() if "encoder_rank" in row}
    assert ranks == {s: pytest.approx(usage.effective_rank(plane(100))) for s in (10, 20)}
    assert 1.8 < ranks[10] <= 2


@pytest.mark.parametrize(("length", "expected"), [(1.0, 1), (3.0, 2)])
def test_lengths_of_inputs_count_unless_the_codes_have_length_one(length, expected):
    """Inputs on two rays: their directions lie on a line, their lengths make a plane."""
    rays = torch.eye(16)[torch.arange(100) % 2]
    inputs = rays * (1 + torch.arange(100)[:, None] % 7)
    track = Track("q", 4, {}, every=10, window=1, observed=False, counted=False)
    seen = Seen(10, True, hits(torch.tensor([0, 1]), 4), inputs=inputs, codes=length * rays)
    track.add(seen)
    (row,) = track.table()
    assert round(row["encoder_rank"]) == expected


def test_the_rank_of_codes_is_that_of_those_in_use():
    codebook = torch.cat([plane(4), torch.randn(4, 16, generator=torch.Generator().manual_seed(1))])
    track = Track("q", 8, {}, every=1, window=1, observed=False, counted=False)
    track.begin_val(codebook)
    track.add(Seen(0, False, hits(torch.arange(4), 8)))
    (row,) = track.table()
    assert row["code_rank"] == pytest.approx(usage.effective_rank(plane(4)))


def test_ranks_of_none_of_one_and_of_many():
    assert math.isnan(rank(torch.empty(0, 8))) and math.isnan(rank(torch.ones(1, 8)))
    assert rank(torch.ones(5, 8)) == 1
    many = torch.randn(20 * RANKED, 8, generator=torch.Generator().manual_seed(0))
    assert rank(many) == rank(many) == pytest.approx(usage.effective_rank(many), rel=0.01)


def test_a_look_now_and_then():
    found = {every: [s for s in range(1, 301) if looks(s, every)] for every in (1, 4, 10, 30, 70)}
    assert found[1] == found[10] == [*range(10, 101, 10), 200, 300]
    assert found[4] == [*range(12, 101, 12), 200, 300]
    assert found[30] == [30, 60, 90, 120, 240] and found[70] == [70, 140, 280]


def test_inputs_are_sampled_in_the_first_rows_and_wherever_one_looks():
    found = {every: [s for s in range(1, 401) if samples(s, every)] for every in (1, 4, 10, 70)}
    assert found[1] == [*range(1, 101), *range(105, 401, 5)]
    assert found[4] == sorted({*range(4, 101, 4), *range(104, 401, 8), 200, 300, 400})
    assert found[10] == [*range(10, 401, 10)] and found[70] == [70, 140, 210, 280, 350]
    for every in (1, 3, 4, 7, 30):
        assert all(samples(s, every) for s in range(1, 1000) if looks(s, every))
