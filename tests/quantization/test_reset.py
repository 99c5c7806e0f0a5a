"""vqlib.reset: who is dead, where they move, what becomes of them."""

import logging
import math

import pytest
import torch
from torch.nn import functional as F

from vqlib import DeadCodeReset
from vqlib.quantization.ledger import ResetLedger
from vqlib.quantization.ranges import SettingsError

CODES, DIM = 16, 4


class Scene:
    """A codebook after an EMA update, and the batch that updated it."""

    def __init__(self, tokens=60, used=6, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.codebook = F.normalize(torch.randn(CODES, DIM, generator=generator), dim=-1)
        self.x = F.normalize(torch.randn(tokens, DIM, generator=generator), dim=-1)
        self.indices = torch.randint(used, (tokens,), generator=generator)
        self.cluster_size = torch.bincount(self.indices, minlength=CODES).float()
        self.seed = seed

    def generator(self):
        return torch.Generator().manual_seed(self.seed + 1000)

    def apply(self, reset):
        return reset.apply(
            self.codebook, self.cluster_size, self.x, self.indices, len(self.x), self.generator()
        )


def guide_rule(scene, threshold):
    """The guide's section 3, written out: (codes, donors, codebook, cluster_size) after it."""
    codebook, cluster_size = scene.codebook.clone(), scene.cluster_size.clone()
    dead = [code for code in range(CODES) if cluster_size[code] < threshold]
    counts = [scene.indices.tolist().count(code) for code in range(CODES)]
    most_used = counts.index(max(counts))
    donors = [token for token, code in enumerate(scene.indices.tolist()) if code == most_used]
    generator = scene.generator()
    if len(donors) >= len(dead):
        order = torch.randperm(len(donors), generator=generator)[: len(dead)]
    else:
        order = torch.randint(len(donors), (len(dead),), generator=generator)
    drawn = [donors[place] for place in order.tolist()]
    for code, token in zip(dead, drawn, strict=True):
        codebook[code] = scene.x[token] / scene.x[token].norm()
        cluster_size[code] = threshold + 1
    return dead, drawn, codebook, cluster_size


@pytest.mark.parametrize("threshold", [0.5, 1.0, 5.0, 10.0])
@pytest.mark.parametrize("tokens", [12, 60, 300])  # too few donors, just enough, plenty
@pytest.mark.parametrize("seed", [0, 1])
def test_the_guides_rule(threshold, tokens, seed):
    scene = Scene(tokens, seed=seed)
    dead, donors, codebook, cluster_size = guide_rule(scene, threshold)
    done = scene.apply(DeadCodeReset(threshold))
    assert done.codes.tolist() == dead and done.donors.tolist() == donors
    torch.testing.assert_close(scene.codebook, codebook)
    assert torch.equal(scene.cluster_size, cluster_size)


def test_living_codes_do_not_change_by_a_bit():
    scene = Scene()
    before, alive = scene.codebook.clone(), scene.cluster_size >= 1
    scene.apply(DeadCodeReset())
    assert torch.equal(scene.codebook[alive], before[alive])
    assert not (scene.codebook[~alive] == before[~alive]).all(dim=1).any()


def test_nothing_happens_where_no_code_is_dead():
    scene = Scene(used=CODES, tokens=400)
    before, counts = scene.codebook.clone(), scene.cluster_size.clone()
    assert scene.apply(DeadCodeReset(counts.min().item())) is None  # at the threshold: alive
    assert torch.equal(scene.codebook, before) and torch.equal(scene.cluster_size, counts)


def test_threshold_0_never_fires_even_on_counts_of_0():
    scene = Scene()
    scene.cluster_size.zero_()
    assert scene.apply(DeadCodeReset(0.0)) is None


def test_without_replacement_where_there_are_donors_enough():
    scene = Scene(tokens=300)
    assert len(scene.apply(DeadCodeReset()).donors.unique()) == 10


# --- donors ---


@pytest.mark.parametrize(("donors", "givers"), [("most_used", 1), ("top", 3), ("batch", 6)])
def test_which_codes_donate(donors, givers):
    scene = Scene(tokens=2000)
    scene.cluster_size[:] = 0  # every code is dead: 16 draws at once
    ranking = torch.bincount(scene.indices).argsort(descending=True)[:givers].tolist()
    seen = set()
    for scene.seed in range(8):
        scene.cluster_size[:] = 0
        done = scene.apply(DeadCodeReset(donors=donors, top=3))
        seen |= set(scene.indices[done.donors].tolist())
    assert seen == set(ranking)


def test_donors_by_usage_follow_the_long_run_count_not_this_batch():
    scene = Scene(tokens=6000)
    tokens = torch.tensor([600, 1200, 300, 2400, 900, 600])
    scene.indices = torch.arange(6).repeat_interleave(tokens)
    share = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.5])
    given = torch.zeros(6)
    for scene.seed in range(400):
        scene.cluster_size[:] = 0
        scene.cluster_size[:6] = share
        done = scene.apply(DeadCodeReset(threshold=0.25, donors="usage", refill=1.0))
        given += torch.bincount(scene.indices[done.donors], minlength=6)
    expected = share / share.sum()
    error = (expected * (1 - expected) / given.sum()).sqrt()
    assert bool(((given / given.sum() - expected).abs() < 5 * error).all())


def test_top_takes_what_there_is_where_fewer_codes_are_used():
    scene = Scene(used=2)
    done = scene.apply(DeadCodeReset(donors="top", top=99))
    assert len(done.codes) == 14


@pytest.mark.parametrize("donors", ["most_used", "top", "batch", "usage"])
def test_few_tokens_are_enough_for_any_donors(donors):
    scene = Scene(tokens=3, used=1)
    done = scene.apply(DeadCodeReset(donors=donors))
    assert len(done.codes) == len(done.donors) == 15 and int(done.donors.max()) < 3


@pytest.mark.parametrize("donors", ["most_used", "top", "batch", "usage"])
def test_one_generator_state_is_one_draw(donors):
    one, two = Scene(), Scene()
    assert torch.equal(
        one.apply(DeadCodeReset(donors=donors)).donors,
        two.apply(DeadCodeReset(donors=donors)).donors,
    )


# --- distinct ---


def with_repeats(tokens=60):
    """A batch in which every vector occurs three times: 20 different ones."""
    scene = Scene(tokens)
    scene.x = scene.x[: tokens // 3].repeat(3, 1)
    return scene


@pytest.mark.parametrize("donors", ["most_used", "top", "batch", "usage"])
def test_distinct_never_duplicates_while_different_vectors_are_left(donors):
    for seed in range(5):
        scene = with_repeats()
        scene.seed = seed
        done = scene.apply(DeadCodeReset(donors=donors, distinct=True))
        assert len(done.codes) == 10
        assert len(scene.x[done.donors].unique(dim=0)) == 10


def test_distinct_takes_the_donors_own_vectors_before_others():
    scene = with_repeats()
    most_used = int(torch.bincount(scene.indices).argmax())
    own = scene.x[scene.indices == most_used].unique(dim=0)
    done = scene.apply(DeadCodeReset(distinct=True))
    first = done.donors[: len(own)]
    assert (scene.indices[first] == most_used).all()
    assert len(scene.x[first].unique(dim=0)) == min(len(own), 10)


def test_distinct_duplicates_evenly_once_different_vectors_have_run_out():
    scene = Scene(tokens=12)
    scene.x = scene.x[:4].repeat(3, 1)
    done = scene.apply(DeadCodeReset(distinct=True))
    _, times = scene.x[done.donors].unique(dim=0, return_counts=True)
    assert len(times) == 4 and times.max() - times.min() <= 1


def test_without_distinct_repeated_vectors_do_become_duplicates():
    scene = with_repeats()
    done = scene.apply(DeadCodeReset(donors="most_used"))
    assert len(scene.x[done.donors].unique(dim=0)) < 10


# --- units, buffer, ceiling ---


def test_relative_thresholds_are_multiples_of_the_uniform_share():
    reset = DeadCodeReset(threshold=0.1, relative=True, refill=1.0)
    assert reset.limits(512, 6272) == pytest.approx((1.225, 12.25))
    scene = Scene(tokens=160)  # 10 tokens a code
    scene.cluster_size[:] = torch.arange(CODES) / 8
    done = scene.apply(reset)
    assert done.threshold == pytest.approx(1.0)
    assert done.codes.tolist() == list(range(8))
    assert scene.cluster_size[:8].tolist() == [10.0] * 8


def test_the_refill_is_the_threshold_plus_1_unless_given():
    assert DeadCodeReset(5.0).limits(512, 6272) == (5.0, 6.0)
    assert DeadCodeReset(5.0, refill=20).limits(512, 6272) == (5.0, 20.0)


def steps_without_a_hit(cluster_size, threshold, decay):
    steps = 0
    while cluster_size >= threshold:
        cluster_size *= decay
        steps += 1
    return steps


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 11), (1.0, 7), (5.0, 2), (10.0, 1)])
def test_the_guides_buffer_lasts_so_many_steps(threshold, expected):
    assert DeadCodeReset(threshold).grace(0.9) == expected
    assert steps_without_a_hit(threshold + 1, threshold, 0.9) == expected


@pytest.mark.parametrize("decay", [0.5, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(("threshold", "refill"), [(0.3, None), (2.0, 3.7), (1.0, 2.0)])
def test_grace_is_the_simulated_number_of_steps(decay, relative, threshold, refill):
    reset = DeadCodeReset(threshold, relative=relative, refill=refill)
    low, high = reset.limits(64, 640)
    assert reset.grace(decay, 64, 640) == steps_without_a_hit(high, low, decay)


def test_grace_at_its_ends():
    assert DeadCodeReset(0.0).grace(0.9) == DeadCodeReset(1.0).grace(1.0) == math.inf
    assert DeadCodeReset(1.0).grace(0.0) == 1


def test_the_ceiling_is_as_many_codes_as_the_tokens_can_feed():
    assert DeadCodeReset(1.0).ceiling(512, 6272) == 1
    assert DeadCodeReset(24.5).ceiling(512, 6272) == pytest.approx(0.5)
    assert DeadCodeReset(2.0).ceiling(4096, 1200) == pytest.approx(1200 / 2 / 4096)
    assert DeadCodeReset(0.0).ceiling(512, 1) == 1
    assert DeadCodeReset(4.0, relative=True).ceiling(512, 77) == pytest.approx(0.25)


# --- what is told ---


def test_the_log_line_is_the_guides_and_the_codes_follow_at_debug(caplog):
    book, counts = torch.eye(50), torch.zeros(50)
    counts[[3, 10, 49]] = 9.0
    with caplog.at_level(logging.DEBUG, logger="vqlib"):
        done = DeadCodeReset().apply(
            book, counts, book.clone(), torch.full((50,), 3), 50, torch.Generator()
        )
    line, codes = caplog.records
    assert (line.name, line.levelno) == ("vqlib", logging.INFO)
    assert line.getMessage() == str(done) == "Reset 47 dead codes (cluster_size < 1.0)"
    assert codes.levelno == logging.DEBUG
    assert codes.getMessage() == f"codes: {[c for c in range(50) if c not in (3, 10, 49)]}"


def test_at_info_the_codes_are_left_out(caplog):
    with caplog.at_level(logging.INFO, logger="vqlib"):
        Scene().apply(DeadCodeReset())
    assert [r.getMessage() for r in caplog.records] == ["Reset 10 dead codes (cluster_size < 1.0)"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold": -1.0}, "of at least 0, got -1.0"),
        ({"threshold": math.nan}, "of at least 0, got nan"),
        ({"threshold": math.inf}, "of at least 0, got inf"),
        ({"relative": "yes"}, "True or False, got 'yes'"),
        ({"donors": "best"}, "one of .*'most_used'.*, got 'best'"),
        ({"every": 0}, "a whole number of at least 1, got 0"),
        ({"every": 1.5}, "a whole number of at least 1, got 1.5"),
        ({"top": 0}, "a whole number of at least 1, got 0"),
        ({"refill": 1.0}, r"above threshold \(1.0\).* got 1.0"),
        ({"refill": math.inf}, "got inf"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(SettingsError, match=message) as caught:
        DeadCodeReset(**wrong)
    assert [caught.value.field] == list(wrong)


# --- the ledger ---


def counts(*hit):
    return torch.tensor([1 if code in hit else 0 for code in range(5)])


def test_a_reset_code_survives_if_it_is_hit_and_not_reset_again():
    ledger = ResetLedger(5, horizon=3)
    ledger.update(counts(0), torch.tensor([1, 2, 3, 4]))  # step 1: four are born
    assert ledger.row()["resets"] == 4 and math.isnan(ledger.row()["survived"])
    ledger.update(counts(0, 1, 2), None)  # 1 and 2 are hit
    ledger.update(counts(0), torch.tensor([2]))  # 2 is reset again: it does not survive
    assert math.isnan(ledger.row()["survived"])  # no verdict is due yet
    ledger.update(counts(0, 4), None)  # step 4 = 1 + 3: verdict; 3 was never hit, 4 just now
    row = ledger.row()
    assert (row["resets"], row["re_resets"], row["survived"]) == (5, 1, 2 / 4)


def test_a_code_that_is_reset_at_the_very_step_of_its_verdict_does_not_survive():
    ledger = ResetLedger(5, horizon=2)
    ledger.update(counts(), torch.tensor([1, 2]))
    ledger.update(counts(1, 2), None)
    ledger.update(counts(1, 2), torch.tensor([1]))
    assert ledger.row()["survived"] == 0.5


def test_a_hit_at_the_step_of_the_reset_itself_is_not_survival():
    ledger = ResetLedger(5, horizon=1)
    ledger.update(counts(3), torch.tensor([3]))  # the hit came before the reset
    ledger.update(counts(), None)
    assert ledger.row()["survived"] == 0


def test_each_birth_has_its_own_verdict():
    ledger = ResetLedger(5, horizon=2)
    ledger.update(counts(), torch.tensor([1]))
    ledger.update(counts(), torch.tensor([1]))
    ledger.update(counts(1), None)  # verdict on the first birth: reset again
    assert ledger.row()["survived"] == 0
    ledger.clear()
    ledger.update(counts(), None)  # on the second: hit at step 3
    row = ledger.row()
    assert (row["resets"], row["re_resets"], row["survived"]) == (0, 0, 1)


def test_a_cleared_window_forgets_its_sums_and_not_the_codes():
    ledger = ResetLedger(5, horizon=9)
    ledger.update(counts(), torch.tensor([1, 2]))
    ledger.clear()
    ledger.update(counts(), torch.tensor([2, 3]))
    assert ledger.row()["resets"] == 2 and ledger.row()["re_resets"] == 1
    assert ledger.times.tolist() == [0, 1, 2, 1, 0]


def test_older_than_leaves_out_codes_born_too_lately():
    ledger = ResetLedger(5, horizon=9)
    ledger.update(counts(), torch.tensor([1]))
    ledger.update(counts(), None)
    ledger.update(counts(), torch.tensor([2]))
    assert ledger.older_than(2).tolist() == [True, True, False, True, True]
    assert ledger.older_than(3).tolist() == [True, False, False, True, True]
    with pytest.raises(ValueError, match="horizon must be a whole number of at least 1, got 0"):
        ResetLedger(5, horizon=0)


def test_a_reset_within_the_grace_of_the_last_one_is_premature():
    ledger, nobody = ResetLedger(4, horizon=9, grace=3), torch.zeros(4)
    for codes in ([0, 1], [0], [], [1, 2], [0]):  # 0 again after 1 and after 3 steps, 1 after 3
        ledger.update(nobody, torch.tensor(codes, dtype=torch.int64))
    assert ledger.row()["premature"] == 1 and ledger.row()["re_resets"] == 3
    ledger.clear()
    assert ledger.row()["premature"] == 0
    assert math.isnan(ResetLedger(4, horizon=9).row()["premature"])


def test_a_ledger_goes_on_from_its_state():
    first, other = ResetLedger(4, 3, grace=2), ResetLedger(4, 3, grace=2)
    steps = [[0, 1], [2], [0], [], [1, 3], [], [], [0]]

    def feed(ledger, steps, counts=(0, 1, 0, 0)):
        for codes in steps:
            ledger.update(torch.tensor(counts), torch.tensor(codes).long())

    feed(first, steps[:3])
    feed(other, [[3], [3], [0], [1]], counts=(1, 1, 1, 1))  # another past, to be forgotten
    other.load_state_dict({name: t.clone() for name, t in first.state_dict().items()})
    feed(first, steps[3:]), feed(other, steps[3:])
    assert other.row() == first.row()
    assert first.row() == {"resets": 7, "re_resets": 3, "premature": 0, "survived": 1 / 3}
    assert {name: t.tolist() for name, t in other.state_dict().items()} == {
        name: t.tolist() for name, t in first.state_dict().items()
    }
