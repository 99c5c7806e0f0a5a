"""vqlib.suite.gates: every kind of gate at its bounds, and each way to get expected.toml wrong."""

import pytest

from vqlib.suite.errors import SuiteError
from vqlib.suite.gatefile import read
from vqlib.suite.gates import Band, Expected, Gate, gates_without_control

NOTEBOOKS, PROFILES = ("01_a", "02_b"), ("quick", "full")
CONTROL = '[01_a.controls.c]\nparameters = {{ x = 1 }}\nmust_fail = ["{}"]\n'


def expected(tmp_path, text):
    path = tmp_path / "expected.toml"
    path.write_text(text, encoding="utf-8")
    return read(path, NOTEBOOKS, PROFILES)


def gate(**bounds):
    return Gate(**bounds)


@pytest.mark.parametrize(
    ("bounds", "good", "bad"),
    [
        ({"max": 0.2}, [0.2, -5], [0.2000001]),
        ({"min": 0.65}, [0.65, 9], [0.6499999]),
        ({"min": 1, "max": 2}, [1, 1.5, 2], [0.999, 2.001]),
        ({"min": 1, "max": 1}, [1], [0, 2]),
        ({"equals": 1.0, "tolerance": 0.1}, [0.9, 1.0, 1.1], [0.8999, 1.1001]),
        ({"equals": 512, "tolerance": 0}, [512], [511, 513, 512.001]),
        ({"equals": True}, [True, 1], [False]),
    ],
)
def test_a_gate_at_its_bounds(bounds, good, bad):
    assert all(gate(**bounds).passes(value) for value in good)
    assert not any(gate(**bounds).passes(value) for value in bad)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"max": 0.2}, "≤ 0.2"),
        ({"min": 3}, "≥ 3"),
        ({"min": 1, "max": 2}, "1 to 2"),
        ({"equals": 2, "tolerance": 0.5}, "= 2 ± 0.5"),
        ({"equals": 2, "tolerance": 0}, "= 2"),
        ({"equals": True}, "= yes"),
        ({"equals": False}, "= no"),
    ],
)
def test_a_gate_in_words(bounds, text):
    assert str(gate(**bounds)) == text


@pytest.mark.parametrize(
    ("bounds", "kind"),
    [
        ({"equals": 6272, "tolerance": 0}, "invariant"),
        ({"equals": False}, "invariant"),
        ({"equals": 6.579, "tolerance": 0.01}, "invariant"),  # a formula, rounded
        ({"equals": 0.8, "tolerance": 0.1}, "band"),
        ({"min": 0.1}, "effect"),
        ({"band": Band(1.0, 0.1, 20, 10)}, "band"),
        ({}, "band"),
    ],
)
def test_the_kind_of_a_gate(bounds, kind):
    assert gate(**bounds).kind == kind


def test_a_band_in_some_profiles_or_in_all_that_were_measured(tmp_path):
    measured = """
[measured.quick.01_a]
seeds = "5 to 14"
repeats = 10
kinds = ["avx2:1"]
[measured.quick.01_a.numbers]
"r/all" = { mean = 1.0, sd = 0.1, n = 10 }
"r/each" = { mean = 2.0, sd = 0.1, n = 10 }
"""
    records = '[01_a.records]\n"r/all" = "band"\n"r/new" = "band"\n'
    records += '"r/each" = { full = { min = 2 }, quick = "band" }\n"r/none" = { quick = "band" }\n'
    found = expected(tmp_path, records + measured).records["01_a"]
    assert found["r/all"] == {"quick": Gate(band=Band(1.0, 0.1, 10, 10))}
    assert found["r/each"] == {"quick": Gate(band=Band(2.0, 0.1, 10, 10)), "full": Gate(min=2)}
    assert found["r/new"] == {"quick": Gate(), "full": Gate()}
    assert found["r/none"] == {"quick": Gate()}


@pytest.mark.parametrize(
    "head",
    [
        "[measured.quick.03_c]",
        "[measured.quik.01_a]",
        "[measured.quick.01_a]",
        "[measured]\nquick = 3",
        "measured = 3",
    ],
)
def test_a_measurement_of_nothing_is_refused(tmp_path, head):
    with pytest.raises(SuiteError, match=r"\[measured[.\w]*\]: "):
        expected(tmp_path, head)


def test_the_three_ways_to_write_an_entry(tmp_path):
    found = expected(
        tmp_path,
        '[01_a.records]\n"r/none" = {}\n"r/all" = { max = 1 }\n'
        '"r/each" = { full = { min = 2 }, quick = { equals = 3, tolerance = 1 } }\n'
        '"r/full" = { full = { min = 2 } }\n',
    ).records["01_a"]
    assert found["r/none"] == {}
    assert found["r/all"] == {"quick": Gate(max=1), "full": Gate(max=1)}
    assert found["r/each"] == {"full": Gate(min=2), "quick": Gate(equals=3, tolerance=1)}
    assert found["r/full"] == {"full": Gate(min=2)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[01_a.records]\n"r" = { mx = 1 }', "01_a: `r`: unknown key `mx` - did you mean `max`?"),
        ('[01_a.records]\n"r" = { fulll = { max = 1 } }', "did you mean `full`?"),
        ('[01_a.records]\n"r" = { full = { mix = 1 } }', "01_a: `r` (full): unknown key `mix`"),
        ('[01_a.records]\n"r" = { full = 3 }', "expected a table, got 3"),
        ('[01_a.records]\n"r" = { full = {} }', "needs `min`, `max` or `equals`"),
        ('[01_a.records]\n"r" = 0.5', "expected a table, got 0.5"),
        ('[01_a.records]\n"r" = { min = 2, max = 1 }', "`min` 2 lies above `max` 1"),
        ('[01_a.records]\n"r" = { max = "1" }', "`max` must be a finite number, got '1'"),
        ('[01_a.records]\n"r" = { max = nan }', "finite"),
        ('[01_a.records]\n"r" = { max = true }', "finite number, got True"),
        ('[01_a.records]\n"r" = { equals = 1 }', "`equals` needs a `tolerance`"),
        ('[01_a.records]\n"r" = { equals = 1, tolerance = -1 }', "must not be negative"),
        ('[01_a.records]\n"r" = { equals = 1, tolerance = 0, max = 2 }', "cannot be combined"),
        ('[01_a.records]\n"r" = { tolerance = 1, max = 2 }', "`tolerance` belongs to `equals`"),
        ('[01_a.records]\n"r" = { max = 1, full = { max = 2 } }', "mixed with profiles"),
        ("[01_aa.records]", "there is no notebook `01_aa` - did you mean `01_a`?"),
        ("[01_a.record]", "[01_a]: unknown key `record` - did you mean `records`?"),
        ("[01_a]\nrecords = 3", "`records` must be a table"),
        ("01_a = 3", "[01_a]: expected a table"),
        ("[01_a", "not valid TOML"),
        ("[01_a.records]\nr/loss = {}", 'needs quotes, like "r/loss"'),
        ("[my notebook.records]", 'needs quotes, like "my notebook.records"'),
        ('[01_a.records]\n"r" = {}\n' + CONTROL.format("r"), "`r` is listed without a gate"),
        (CONTROL.format("q"), "`q` has no gate"),
        ('[01_a.records]\n"rec" = {max=1}\n' + CONTROL.format("rex"), "did you mean `rec`?"),
        ("[01_a.controls.c]\nmust_fail = ['r']", "`parameters` must be a table"),
        ("[01_a.controls.c]\nparameters = { x = 1 }", "`must_fail` must list"),
        ("[01_a.controls.c]\nparameter = { x = 1 }", "did you mean `parameters`?"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, text, says):
    with pytest.raises(SuiteError) as caught:
        expected(tmp_path, text)
    assert any(says in problem for problem in caught.value.problems), caught.value.problems
    assert all("expected.toml" in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    "text", ["[01_a.records]\nloss = {", "[01_a.records]\n'a loss' = {", "[01_a", "="]
)
def test_only_a_name_that_needs_quotes_is_said_to_need_them(tmp_path, text):
    with pytest.raises(SuiteError) as caught:
        expected(tmp_path, text)
    assert "quotes" not in str(caught.value)


def test_every_problem_is_listed(tmp_path):
    with pytest.raises(SuiteError) as caught:
        expected(tmp_path, '[01_a.records]\n"r" = { mx = 1 }\n"s" = { min = 2, max = 1 }\n[03_c]')
    assert len(caught.value.problems) == 3


CLAIM = '[01_a.records]\n"r" = {{ max = 1 }}\n"free" = {{}}\n[01_a.claims]\n{}'


def test_a_gate_knows_the_claim_that_it_guards(tmp_path):
    found = expected(tmp_path, CLAIM.format('"It falls" = ["r"]'))
    assert [v.claim for v in found.judge("01_a", "quick", {"r": 0})] == ["It falls"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('"c" = ["q"]', "01_a: the claim `c`: `q` has no gate"),
        ('"c" = ["free"]', "01_a: the claim `c`: `free` is listed without a gate; expected one"),
        ('"c" = "r"', "01_a: the claim `c` must list the gates that guard it, got 'r'"),
        ('"c" = ["r"]\n"d" = ["r"]', "01_a: the claim `d`: `r` already guards another claim"),
        ("[01_a.budget]\nsecond = 3", "unknown key `second` - did you mean `seconds`?"),
        ("[01_a.budget]\nseconds = '3'", "[01_a.budget] seconds: `max` must be a finite number"),
        ("[01_a.budget]\nseconds = { quik = 3 }", "did you mean `quick`?"),
        ('[01_a.records."budget/x"]\nmax = 1', "must not begin with `budget/`"),
    ],
)
def test_malformed_claims_and_budgets_are_refused(tmp_path, text, says):
    with pytest.raises(SuiteError) as caught:
        expected(tmp_path, CLAIM.format(text))
    assert any(says in problem for problem in caught.value.problems), caught.value.problems


def test_a_budget_is_judged_like_a_record_in_each_profile(tmp_path):
    text = "[01_a.budget]\nseconds = { full = 60, quick = 5 }\noutput_mb = 2\n"
    found = expected(tmp_path, text)
    cost = {"seconds": 30.0, "memory_mb": 900.0, "output_mb": 2.5}
    passed = {p: [v.passed for v in found.judge("01_a", p, {}, cost)] for p in PROFILES}
    assert passed == {"quick": [False, False], "full": [True, False]}
    verdict = found.judge("01_a", "quick", {}, cost)[1]
    assert (verdict.record, verdict.value, str(verdict.gate)) == ("budget/output_mb", 2.5, "≤ 2")
    assert found.judge("01_a", "full", {}, cost | {"seconds": None})[0].passed is None
    assert found.mismatches("01_a", []) == []  # nothing that a notebook would have to record


def test_judging_knows_the_profile_and_what_has_no_value(tmp_path):
    found = expected(
        tmp_path, '[01_a.records]\n"r" = { quick = { max = 1 }, full = { max = 3 } }\n"free" = {}\n'
    )
    verdict = {p: found.judge("01_a", p, {"r": 2, "free": 0})[0].passed for p in PROFILES}
    assert verdict == {"quick": False, "full": True}
    assert [v.passed for v in found.judge("01_a", "quick", {})] == [None]
    assert found.judge("02_b", "quick", {}) == []


def test_missing_and_unexpected_records(tmp_path):
    found = expected(tmp_path, '[01_a.records]\n"a/loss" = {}\n"a/steps" = {}\n')
    assert found.mismatches("01_a", ["a/loss", "a/steps"]) == []
    assert found.mismatches("01_a", ["a/loss", "a/step"]) == [
        "record `a/steps` is expected, but was not made - did you mean `a/step`?",
        "record `a/step` was made, but expected.toml does not list it",
    ]
    assert len(found.mismatches("02_b", ["x"])) == 1


def test_an_optional_record_may_be_missing_or_there(tmp_path):
    found = expected(tmp_path, '[01_a.records]\n"a/loss" = {}\n"own/accuracy" = "optional"\n')
    assert found.mismatches("01_a", ["a/loss"]) == []
    assert found.mismatches("01_a", ["a/loss", "own/accuracy"]) == []
    assert found.judge("01_a", "quick", {"a/loss": 1, "own/accuracy": 1}) == []
    with pytest.raises(SuiteError):
        expected(tmp_path, '[01_a.records]\n"a/loss" = "maybe"\n')


def test_gates_without_a_control(tmp_path):
    text = '[01_a.records]\n"r" = { max = 1 }\n"s" = { max = 1 }\n"free" = {}\n'
    assert gates_without_control(expected(tmp_path, text)) == [("01_a", "r"), ("01_a", "s")]
    found = expected(tmp_path, text + CONTROL.format("r"))
    assert gates_without_control(found) == [("01_a", "s")]
    assert gates_without_control(Expected()) == []
