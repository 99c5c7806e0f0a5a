"""vqlib.audit: it finds each fault, is silent on what is correct, and leaves no trace."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import vqlib
from tests.training.tiny_training import copies, same_bits
from vqlib import DeadCodeReset, NormEMAQuantizer
from vqlib.diagnosis.audit.bench import Bench, Seen
from vqlib.diagnosis.audit.starting import first_step_explosion
from vqlib.quantization.faults import EXPECTED, FAULTS
from vqlib.watching.adapters import NORM_EMA, Adapter

GRAVE = ("critical", "warning")
BY_HISTORY = ("resets-end-early", "passes-two-dimensions", "sums-its-loss")
QUESTIONS = {f for name, f in EXPECTED.items() if name not in BY_HISTORY}


def audit(subject, **settings):
    return vqlib.audit(subject, **({"ranks": False} | settings))


def sound(size=64, dim=16, reset="default", **settings):
    reset = DeadCodeReset() if reset == "default" else reset
    return lambda: NormEMAQuantizer(size, dim, reset=reset, **settings)


def number(finding, name):
    """The last number under a name."""
    return [e.value for e in finding.evidence if e.name == name][-1]


# --- what is found ---

# one takes two processes (test_ranks), the others a whole training
ALONE = sorted(set(FAULTS) - {"ranks-draw-alone", *BY_HISTORY})


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize(("size", "dim", "seed"), [(64, 16, 0), (128, 32, 1)])
def test_each_fault_is_found(name, size, dim, seed):
    # a reset brings exploded codes back within the step, and hides them
    reset = None if name == "inconsistent-start" else DeadCodeReset()
    found = audit(lambda: FAULTS[name](size, dim, reset=reset, seed=seed), seed=seed)
    assert EXPECTED[name] in found.ids(*GRAVE)
    assert found[EXPECTED[name]].cause and found[EXPECTED[name]].remedy
    assert found.verdict in GRAVE


SOUND = {
    "default": {},
    "relative": {"reset": DeadCodeReset(0.1, relative=True, refill=1.0)},
    "relative, every 5": {"reset": DeadCodeReset(0.1, relative=True, refill=1.0, every=5)},
    "batch": {"reset": DeadCodeReset(donors="batch")},
    "distinct": {"reset": DeadCodeReset(distinct=True)},
    "top, 0.5": {"reset": DeadCodeReset(0.5, donors="top")},
    "usage": {"reset": DeadCodeReset(donors="usage")},
    "no reset": {"reset": None},
    "random start": {"kmeans_init": False},
    "decay 0.5": {"decay": 0.5},
    "decay 0.99": {"decay": 0.99},
    "K 8, D 2": {"size": 8, "dim": 2},
    "K 300, D 3": {"size": 300, "dim": 3},
    "K 512, D 256": {"size": 512, "dim": 256},
}


@pytest.mark.parametrize("settings", SOUND.values(), ids=SOUND)
def test_it_is_silent_on_what_is_sound(settings):
    found = audit(sound(**settings))
    assert found.ids(*GRAVE) == set()
    assert found.verdict == "healthy"
    assert {a.id for a in found.answers} == (QUESTIONS | {"healthy"}) - {"ranks-disagree"}


def test_the_answers_hold_the_numbers_that_decided():
    found = audit(sound())
    assert number(found["reset-does-not-survive"], "steps until reset again without a hit") == (
        DeadCodeReset().grace(0.9)
    )
    assert number(found["reset-does-not-survive"], "of these not left in place") == 0
    assert number(found["reset-does-not-survive"], "reset codes that were hit") > 0
    assert number(found["cold-start"], "their counts over their hits") == pytest.approx(1)
    assert number(found["threshold-above-share"], "uniform share") == 4
    # beta 0.25, twice (1 - cosine) over 16 features
    reads = number(
        found["loss-hides-collapse"], "loss that a total collapse (1 - cosine = 1) would read"
    )
    assert reads == pytest.approx(0.25 * 2 / 16, rel=1e-3)


@pytest.mark.parametrize(
    ("reset", "steps"), [(DeadCodeReset(0.5), 11), (DeadCodeReset(1.0), 7), (DeadCodeReset(2.0), 4)]
)
def test_the_grace_of_a_reset_code_is_measured_right(reset, steps):
    found = audit(sound(reset=reset))["reset-does-not-survive"]
    assert number(found, "steps until reset again without a hit") == steps
    assert reset.grace(0.9) == steps


def test_a_code_that_lives_one_step_without_a_hit_is_a_note():
    found = audit(sound(reset=DeadCodeReset(3.0, refill=3.01)))["reset-does-not-survive"]
    assert found.severity == "note"
    assert "11 steps at decay 0.9" in found.remedy


def test_copies_where_donors_are_too_few_are_a_note_and_distinct_donors_make_none():
    few, distinct = audit(sound()), audit(sound(reset=DeadCodeReset(distinct=True)))
    assert few["duplicate-codes"].severity == "note"
    first, *_, scattered = (e for e in few["duplicate-codes"].evidence if "equal" in e.name)
    assert first.value == 0 and scattered.value > 0
    assert distinct["duplicate-codes"].severity == "clear"


def test_a_loss_that_is_small_by_its_scale_is_a_note_that_says_how_small():
    found = audit(sound(dim=256))["loss-hides-collapse"]
    assert found.severity == "note"
    reads = number(found, "loss that a total collapse (1 - cosine = 1) would read")
    assert reads == pytest.approx(0.5 / 256, rel=1e-3)
    assert audit(sound(dim=256, beta=0.1))["loss-hides-collapse"].severity == "warning"


def test_a_loss_that_falls_with_the_tokens_is_found_even_where_it_is_not_small():
    made = lambda: FAULTS["averages-twice"](8, 2, beta=100.0)  # noqa: E731
    found = audit(made)["loss-hides-collapse"]
    assert found.severity == "warning" and "number of tokens" in found.cause
    assert number(found, "loss where every token comes twice") == pytest.approx(0.5, rel=1e-3)
    assert number(
        audit(sound())["loss-hides-collapse"], "loss where every token comes twice"
    ) == pytest.approx(1, rel=1e-3)


def test_a_threshold_is_judged_by_the_tokens_of_the_training():
    high = sound(reset=DeadCodeReset(5.0))
    reached = audit(high, tokens=64 * 12)["threshold-above-share"]
    above = audit(high, tokens=64 * 3)["threshold-above-share"]
    unsaid = audit(high)["threshold-above-share"]
    assert (reached.severity, unsaid.severity) == ("clear", "unknown")
    assert above.severity in GRAVE and "0.3 hits a step" in above.remedy
    assert "60% of the codes" in above.cause  # 3 / 5
    assert "at least 320" in unsaid.remedy  # 5 x 64


def test_a_reset_that_is_off_is_a_note_with_a_threshold_to_use():
    found = audit(sound(reset=None))["reset-never-fires"]
    assert found.severity == "note" and "0.4 hits a step at 256 tokens" in found.remedy


# --- what cannot be asked ---


class Grid(nn.Module):
    """Rounds: a quantizer without a codebook, without a loss."""

    def forward(self, z):
        index = (z[:, 0] > 0).long()
        return z.sign(), index, None


GRID = Adapter(indices=lambda m, out: out[1], codebook=lambda m: None, name="grid")


def test_without_a_codebook_most_questions_do_not_apply_and_say_why():
    found = audit(Grid(), adapter=GRID, dim=4)
    idle = {a.id: a for a in found.answers if a.severity == "not applicable"}
    assert set(idle) == QUESTIONS - {
        "ranks-disagree",
        "evaluation-changes-counts",
        "not-reproducible",
    }
    assert "no codebook" in idle["cold-start"].cause
    assert "no loss" in idle["loss-hides-collapse"].cause
    assert found["not-reproducible"].severity == "clear"


class Learned(nn.Module):
    """A codebook that only an optimizer moves."""

    def __init__(self):
        super().__init__()
        self.codes = nn.Embedding(8, 4)

    def forward(self, z):
        index = torch.cdist(z, self.codes.weight).argmin(-1)
        taken = self.codes(index)
        return taken, index, (taken - z).square().mean()


LEARNED = Adapter(indices=lambda m, out: out[1], codebook=lambda m: m.codes.weight)


def test_a_codebook_that_the_forward_pass_does_not_move():
    found = audit(Learned, adapter=LEARNED)
    assert found["reset-never-fires"].severity == "not applicable"
    assert "optimizer" in found["reset-never-fires"].cause
    assert found["loss-hides-collapse"].severity == "clear"
    assert found.title == "audit of Learned"


def test_a_module_that_has_learned_is_not_asked_how_it_starts():
    q = sound()()
    for _ in range(5):
        q(torch.randn(200, 16))
    found = audit(q)
    for question in ("cold-start", "first-step-explosion"):
        assert found[question].severity == "not applicable"
        assert "already learned" in found[question].cause
    assert found["reset-does-not-survive"].severity == "clear"
    assert audit(sound()())["cold-start"].severity == "clear"  # it has not


# --- what an adapter that says less leaves undecided ---


def test_without_settings_and_counts_behaviour_still_decides():
    blind = Adapter(indices=NORM_EMA.indices, codebook=NORM_EMA.codebook, loss=lambda out: out.loss)
    assert audit(sound(), adapter=blind).ids(*GRAVE) == set()
    for name in ("forgets-the-count", "counts-in-evaluation", "draws-with-replacement"):
        made = lambda name=name: FAULTS[name](64, 16, reset=DeadCodeReset(2.0))  # noqa: E731
        found = audit(made, adapter=blind)
        assert EXPECTED[name] in found.ids(*GRAVE), name
    quiet = audit(lambda: FAULTS["waits-for-zero"](64, 16, reset=DeadCodeReset()), adapter=blind)
    # its buffer of counts changes: a reset may be there
    assert quiet["reset-never-fires"].severity == "unknown"
    assert "no threshold" in quiet["reset-never-fires"].cause


class Projected(nn.Module):
    """Tokens of 6 features, codes of 4."""

    def __init__(self):
        super().__init__()
        self.into, self.inner = nn.Linear(6, 4), sound(32, 4)()

    def forward(self, z):
        out = self.inner(self.into(z))
        return z, out.indices, out.loss


def test_a_layer_that_projects_its_inputs():
    adapter = Adapter(
        indices=lambda m, out: out[1],
        codebook=lambda m: m.inner.codebook,
        counts=lambda m: m.inner.cluster_size,
        settings=lambda m: NORM_EMA.settings(m.inner) | {"dim": 6},
    )
    found = audit(Projected, adapter=adapter)
    assert found.ids(*GRAVE) == set()
    for question in ("cold-start", "threshold-above-share"):
        assert "projects" in found[question].cause
    assert found["reset-never-fires"].severity == "clear"


def test_of_several_codebooks_the_first_is_examined():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.levels = nn.ModuleList([sound(kmeans_init=False)() for _ in range(2)])

        def forward(self, z):
            first, second = (level(z) for level in self.levels)
            return first.quantized + second.quantized, first.indices, first.loss

    adapter = Adapter(
        indices=lambda m, out: [out[1], out[1]],
        codebook=lambda m: [level.codebook for level in m.levels],
        counts=lambda m: [level.cluster_size for level in m.levels],
        settings=lambda m: NORM_EMA.settings(m.levels[0]),
    )
    found = audit(Two, adapter=adapter)
    assert "codebook 1 of 2" in found.title
    assert found.ids(*GRAVE) == set()


# --- state ---


class CountsCalls(NormEMAQuantizer):
    calls = 0

    def forward(self, z):
        self.calls += 1
        return super().forward(z)


def test_a_plain_number_that_evaluation_changes_is_only_a_note():
    found = audit(lambda: CountsCalls(32, 8))["evaluation-changes-counts"]
    assert found.severity == "note"
    assert number(found, "they are") == "calls"


class DrawsInEvaluation(NormEMAQuantizer):
    def forward(self, z):
        torch.rand(1, generator=self.generator)
        return super().forward(z)


def test_a_generator_that_evaluation_moves_is_found():
    found = audit(lambda: DrawsInEvaluation(32, 8))["evaluation-changes-counts"]
    assert found.severity == "critical" and number(found, "they are") == "generator"


class InitialisesInEvaluation(NormEMAQuantizer):
    def forward(self, z):
        if not self.training and not self.initialized:
            self.codebook.add_(1)
        return super().forward(z)


def test_an_evaluation_before_training_that_initialises_is_a_note():
    found = audit(lambda: InitialisesInEvaluation(32, 8))["evaluation-changes-counts"]
    assert found.severity == "note" and "before any training" in found.cause


class DrawsFromEntropy(NormEMAQuantizer):
    def _start(self, x):
        codebook, counts = super()._start(x)
        noise = torch.Generator()
        noise.seed()
        return codebook + 1e-3 * torch.randn(codebook.shape, generator=noise), counts


class DrawsFromTorch(nn.Module):
    """Draws from the process's generator, and holds none of its own."""

    def __init__(self):
        super().__init__()
        self.codes = nn.Embedding(8, 4)

    def forward(self, z):
        index = torch.randint(8, (len(z),))
        return self.codes(index), index, None


def test_what_no_seed_decides_is_critical_and_torchs_own_seed_is_fair():
    assert audit(lambda: DrawsFromEntropy(32, 8))["not-reproducible"].severity == "critical"
    fair = audit(DrawsFromTorch, adapter=LEARNED)["not-reproducible"]
    assert fair.severity == "clear" and "process's generator" in fair.cause
    assert [e.value for e in fair.evidence] == ["yes", "no"]


def test_the_subject_and_the_random_numbers_are_as_before():
    q = sound()().eval()
    q.train()(torch.randn(200, 16))
    q.eval()
    before, generator, steps = copies(q.state_dict()), torch.get_rng_state(), int(q.steps)
    audit(q)
    assert same_bits(copies(q.state_dict()), before) and int(q.steps) == steps
    assert not q.training
    assert torch.equal(torch.get_rng_state(), generator)


def test_one_seed_gives_one_answer():
    first, second = (audit(sound(), seed=3).to_json() for _ in range(2))
    assert first == second
    assert first != audit(sound(), seed=4).to_json()


# --- what is not finite ---


class Broken(NormEMAQuantizer):
    """One part of it is NaN: in training mode, or in evaluation mode, or after one step."""

    def __init__(self, part, mode="training"):
        super().__init__(32, 8)
        self.part, self.mode = part, mode

    def forward(self, z):
        out = super().forward(z)
        if self.mode != ("training" if self.training else "evaluation"):
            return out
        if self.part == "codebook":
            self.codebook[3] = torch.nan
            return out
        return out._replace(**{self.part: getattr(out, self.part) * torch.nan})


@pytest.mark.parametrize(
    ("part", "name", "mode"),
    [
        ("quantized", "output", "training"),
        ("quantized", "output", "evaluation"),
        ("loss", "loss", "training"),
        ("codebook", "codebook", "training"),
    ],
)
def test_what_is_not_finite_is_critical_and_ends_the_examination(part, name, mode):
    found = audit(lambda: Broken(part, mode))
    assert found.verdict == "critical" and found.ids(*GRAVE) == {"unstable-training"}
    assert f"The {name} is NaN" in found["unstable-training"].cause
    assert {a.id for a in found.answers} == (QUESTIONS | {"unstable-training"}) - {"ranks-disagree"}
    assert "see unstable-training" in found["not-reproducible"].cause


def test_without_a_codebook_too():
    odd = replace(GRID, loss=lambda out: torch.tensor(torch.inf))
    found = audit(Grid(), adapter=odd, dim=4)
    assert found.ids(*GRAVE) == {"unstable-training"}
    assert found["cold-start"].severity == "not applicable"


class EmptyUntilTrained(NormEMAQuantizer):
    """Holds NaN until its first batch."""

    def __init__(self, size, dim):
        super().__init__(size, dim)
        self.codebook.fill_(torch.nan)

    def forward(self, z):
        if not self.training and not self.initialized:
            out = super().forward(z)
            return out._replace(quantized=out.quantized * torch.nan)
        return super().forward(z)


def test_codes_that_are_missing_before_the_first_step_are_no_fault():
    assert audit(lambda: EmptyUntilTrained(64, 16)).ids(*GRAVE) == set()


# --- wrong subjects ---


class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo):
        raise TypeError("holds a lock")


@pytest.mark.parametrize(
    ("subject", "settings", "error", "text"),
    [
        (3, {}, TypeError, "expected a module, or a function.*got 3"),
        (lambda: 3, {}, TypeError, "this one made 3"),
        (nn.Linear(4, 4), {}, TypeError, "Linear is not recognised.*adapter="),
        (Uncopyable(4, 4), {}, TypeError, "cannot be copied .holds a lock.; give a function"),
        (sound(), {"dim": 7}, ValueError, r"rejects tokens of shape \(256, 7\)"),
        (sound(), {"dim": 0}, ValueError, "dim must be a whole number of at least 1, got 0"),
        (sound(), {"tokens": 2.5}, ValueError, "tokens must be a whole number.*got 2.5"),
        (Grid(), {"adapter": GRID}, ValueError, "give dim="),
        (
            Grid(),
            {"adapter": Adapter(GRID.indices, GRID.codebook, quantized=lambda out: None), "dim": 4},
            ValueError,
            r"quantized must give .*\(256, 4\); got None",
        ),
        (sound(), {"tokens": True}, ValueError, "tokens must be a whole number.*got True"),
        (sound(), {"adapter": "x"}, TypeError, "must be a vqlib.Adapter or None, got 'x'"),
        (sound()().to("meta"), {}, ValueError, "meta device: its codebook holds no values"),
        (lambda: sound()().to("meta"), {}, ValueError, "meta device"),
    ],
)
def test_what_cannot_be_audited_is_refused_clearly(subject, settings, error, text):
    with pytest.raises(error, match=text):
        audit(subject, **settings)


def fails(*given):
    raise KeyError("nothing here")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"indices": lambda m, out: out.indices - 1000}, ValueError, "codes from -1 to 63; got -9"),
        ({"indices": lambda m, out: out.indices + 64}, ValueError, "codes from -1 to 63"),
        ({"indices": lambda m, out: out.indices[:3]}, ValueError, r"256 tokens; got .* \(3,\)"),
        (
            {"indices": lambda m, out: out.indices.repeat(2)},
            ValueError,
            r"256 tokens; got .*\(512,\)",
        ),
        (
            {"indices": lambda m, out: [out.indices] * 2},
            ValueError,
            "1 tensors, one a codebook; got 2",
        ),
        ({"indices": lambda m, out: None}, TypeError, "indices must give integers.*got None"),
        ({"indices": lambda m, out: out.indices.float()}, TypeError, "integers.*float32"),
        ({"codebook": lambda m: m.codebook[None]}, TypeError, r"\(K, D\).*got .*\(1, 64, 16\)"),
        ({"codebook": lambda m: m.codebook.numpy()}, TypeError, r"codebook must give a tensor"),
        ({"counts": lambda m: m.cluster_size[:3]}, ValueError, r"lengths \[64\]; got .*\(3,\)"),
        ({"counts": lambda m: m.codebook[:, :2]}, TypeError, r"tensor \(K,\).*got .*\(64, 2\)"),
        ({"settings": lambda m: None}, TypeError, "settings must give a dict.*got None"),
        (
            {"settings": lambda m: {"decay": "0.9"}},
            ValueError,
            "decay must be a number from 0 to 1.*'0.9'",
        ),
        (
            {"settings": lambda m: {"decay": 9.0}},
            ValueError,
            "decay must be a number from 0 to 1.*9.0",
        ),
        ({"settings": lambda m: {"dead_code_threshold": -1}}, ValueError, "at least 0, got -1"),
        ({"settings": lambda m: {"reset_interval": 0.5}}, ValueError, "whole number.*0.5"),
        ({"settings": lambda m: {"reset_relative": "no"}}, ValueError, "True or False, got 'no'"),
        ({"loss": lambda out: "0.1"}, TypeError, "loss must give a tensor of floats.*got '0.1'"),
        ({"resets": lambda m: m.cluster_size > 0}, TypeError, "resets must give integers.*bool"),
        ({"resets": lambda m: "none"}, TypeError, "resets must give integers.*got 'none'"),
        ({"resets": lambda m: torch.tensor([64])}, ValueError, "codes from 0 to 63; got 64"),
        ({"call": fails}, ValueError, "in evaluation mode .* rejects tokens .*nothing here"),
        *[
            ({name: fails}, TypeError, f"adapter's {name} fails: KeyError: 'nothing here'")
            for name in ("indices", "codebook", "counts", "settings", "quantized", "loss", "resets")
        ],
    ],
)
def test_a_wrong_adapter_is_no_sound_layer_and_no_fault(changes, error, text):
    with pytest.raises(error, match=text):
        audit(sound(), adapter=replace(NORM_EMA, **changes))


def test_a_loss_may_be_a_plain_number():
    found = audit(sound(), adapter=replace(NORM_EMA, loss=lambda out: 0.3))
    assert found["loss-hides-collapse"].severity == "clear"


class OnlyEvaluates(NormEMAQuantizer):
    def forward(self, z):
        if self.training:
            raise RuntimeError("no training here")
        return super().forward(z)


def test_a_layer_that_fails_in_training_says_so():
    with pytest.raises(ValueError, match=r"in training mode .* no training here"):
        audit(lambda: OnlyEvaluates(64, 16))


# --- how it reads ---


def test_the_table_has_a_row_a_question_and_a_column_a_subject():
    audits = {"sound": audit(sound()), "grid": audit(Grid(), adapter=GRID, dim=4)}
    table = vqlib.audit_table(audits)
    assert list(table.columns) == ["sound", "grid"]
    assert set(table.index) == QUESTIONS - {"ranks-disagree"}
    assert table.at["cold-start", "sound"] == "clear"
    assert table.at["cold-start", "grid"] == "–"
    assert vqlib.audit_table({}).empty


def test_it_prints_and_goes_into_json():
    found = audit(lambda: FAULTS["cold-start"](64, 16, reset=DeadCodeReset()))
    assert "CRITICAL cold-start" in str(found)
    plain = json.loads(found.to_json())
    assert plain["verdict"] == "critical"
    assert all(
        math.isfinite(e["value"])
        for a in plain["answers"]
        for e in a["evidence"]
        if not isinstance(e["value"], str)
    )


# --- what is seen of one step ---


def seen(before, after, z, indices):
    empty = torch.empty(0, dtype=torch.int64)
    return Seen(z, torch.tensor(indices), before, after, None, empty, None)


def test_what_counts_as_put_elsewhere():
    z = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])
    before = torch.eye(2).repeat(3, 1)
    after = before.clone()
    after[0] = torch.tensor([1.0, 0.3])  # hit, follows its inputs: turned, but on none
    after[1] = torch.tensor([-0.7, 0.7])  # hit, and on an input
    after[2] *= 5  # no hit, only longer
    after[3] = torch.tensor([0.5, 0.5])  # no hit, turned
    after[4] = before[4]  # no hit, untouched, though on an input
    assert seen(before, after, z, [0, 1, 1]).put_elsewhere.tolist() == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]


def test_a_short_move_onto_an_input_counts_and_one_beside_it_does_not():
    before = torch.tensor([[1.0, 0.0]] * 3)
    after = torch.tensor([[1.0, 0.05], [1.0, 0.06], [1.0, 0.0]])
    z = torch.tensor([[2.0, 0.1], [5.0, 5.0]])
    assert seen(before, after, z, [2, 2]).put_elsewhere.tolist() == [True, False, False]


def test_a_code_put_onto_a_long_input_is_no_explosion_and_one_that_grows_is():
    bench = Bench(sound(3, 2)(), NORM_EMA, None, True, None, 0)
    before = torch.tensor([[0.1, 0.0], [0.0, 0.1], [0.1, 0.1]])
    put, grown = before.clone(), before.clone()
    put[1] = torch.tensor([4.0, 0.0])
    grown[1] = torch.tensor([0.0, 4.0])
    z = torch.tensor([[4.0, 0.0]])
    reset = first_step_explosion(bench, [seen(before, put, z, [0])])
    assert reset.severity == "clear"
    exploded = first_step_explosion(bench, [seen(before, grown, z, [0])])
    assert exploded.severity == "critical"
    ratio = number(exploded, "largest norm of a code without a hit")
    assert ratio == pytest.approx(4 / 0.02**0.5)  # of the longest code before


def test_the_bench_says_whether_a_module_is_fresh():
    def fresh(module):
        return Bench(module, NORM_EMA, None, None, None, 0).fresh

    q = sound()()
    assert fresh(q)
    trained = copy.deepcopy(q)
    trained(torch.randn(100, 16))
    assert not fresh(trained)
