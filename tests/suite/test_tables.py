"""vqlib.suite.tables: names and numbers as a person reads them."""

from pathlib import Path

import pytest

from vqlib.suite import Result, tables
from vqlib.suite.gates import Gate, Verdict


def result(records=(), gates=(), error=None, notebook="04_compare"):
    return Result(notebook, "full", {}, dict(records), 1.0, Path("x.ipynb"), error, tuple(gates))


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("val_utilization", "Validation utilization"),
        ("recon_mse", "Reconstruction MSE"),
        ("top-code_ratio", "Top code ratio"),
        ("seed 0/perplexity", "Seed 0 perplexity"),
    ],
)
def test_names_become_words(name, label):
    assert tables.human(name) == label


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), (False, "no"), (0.1234567, "0.123457"), (3, "3"), (None, "–")],
)
def test_a_value_without_a_unit(value, text):
    assert tables.exact_text(value) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("after/val_utilization", 0.9684, "96.8 %"),
        ("utilization", 1, "100.0 %"),
        ("train_val_gap", -0.031, "−3.1 %"),
        ("top_share", 0.08, "8.0 %"),
        ("shared_codes", 8, "8"),
        ("perplexity", 262.94, "263"),
        ("steps", 6272, "6\u2009272"),
        ("mse", 0.014231, "0.0142"),
        ("loss", 2.0, "2"),
        ("lr", 3e-5, "3.00e−05"),
        ("ratio", 41.31, "41.3"),
        ("ok", True, "yes"),
        ("ok", False, "no"),
        ("x", None, "–"),
        ("tokens", 12345.6, "12\u2009346"),
        ("delta", -0.5, "−0.500"),
    ],
)
def test_values_have_their_unit_and_sensible_digits(name, value, text):
    assert tables.value_text(name, value) == text


@pytest.mark.parametrize(
    ("name", "before", "after", "change"),
    [
        ("val_utilization", 0.141, 0.968, "+83 points"),
        ("gap", 0.05, 0.021, "−2.9 points"),
        ("gap", 0.05, 0.05, "0.0 points"),
        ("mse", 0.0142, 0.0069, "−51 %"),
        ("mse", 1.0, 1.021, "+2.1 %"),
        ("perplexity", 31.2, 262.9, "× 8.43"),
        ("dead", 0, 3, ""),
        ("ok", False, True, ""),
        ("x", -2.0, -1.0, "+50 %"),
    ],
)
def test_the_change_is_in_points_or_relative(name, before, after, change):
    assert tables.Pair("n", name, before, after).change == change
    assert tables.Pair("n", name, before, after, True).change == change
    undecided = f"{change}, undecided" if change else ""
    assert tables.Pair("n", name, before, after, False).change == undecided


def test_a_pair_says_that_its_change_is_undecided_if_the_notebook_said_so():
    records = {"before/a": 2, "after/a": 1, "decided/a": False, "before/b": 2, "after/b": 1}
    first, second = tables.pairs([result(records)])
    assert (first.change, second.change) == ("−50 %, undecided", "−50 %")


def test_pairs_need_both_sides_and_keep_their_order():
    one = result({"after/b": 1, "before/b": 2, "before/a": 3, "x": 4, "before/c": 5, "after/a": 6})
    two = result({"before/b": 7, "after/b": 8}, notebook="05")
    found = [(p.notebook, p.name, p.before, p.after) for p in tables.pairs([one, two])]
    assert found == [("04_compare", "b", 2, 1), ("04_compare", "a", 3, 6), ("05", "b", 7, 8)]


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        (Gate(max=0.2), "≤ 20 %"),
        (Gate(min=0.65), "≥ 65 %"),
        (Gate(min=0, max=0.07), "0 % to 7 %"),
        (Gate(equals=0.5, tolerance=0.02), "= 50 % ± 2 %"),
    ],
)
def test_a_gate_speaks_the_unit_of_its_record(gate, text):
    assert tables.gate_text("a/utilization", gate) == text
    assert tables.gate_text("a/loss", gate) == str(gate)


def test_the_gates_table():
    gates = [
        Verdict("a/loss", 0.5, Gate(max=1), True),
        Verdict("a/utilization", 0.1, Gate(min=0.65), False),
        Verdict("b", None, Gate(max=1), None),
    ]
    assert tables.gates_text([result(gates=gates)]).splitlines() == [
        "                           value    gate   result",
        "04_compare a/loss          0.500     ≤ 1     pass",
        "04_compare a/utilization  10.0 %  ≥ 65 %     FAIL",
        "04_compare b                   –     ≤ 1  not run",
    ]
    sly = [Verdict("a\x1b[2J\n", 0.5, Gate(max=1), True)]
    assert tables.gates_text([result(gates=sly)]).splitlines()[1].split()[1] == "a[2J"
    assert tables.gates_summary([result(gates=gates)]) == "1 of 3 gates pass; red: a/utilization"
    assert tables.gates_summary([result(gates=gates[:1])]) == "1 of 1 gates pass"
    assert tables.gates_text([result()]) == "no gate in this profile"


def test_the_before_after_table():
    text = tables.before_after_text(
        [result({"before/val_utilization": 0.1, "after/val_utilization": 1})]
    )
    assert text.splitlines()[-1] == "Validation utilization  10.0 %  100.0 %  +90 points"
    assert tables.before_after_text([result()]) == ""


def test_failures_are_told_with_their_traceback_and_without_control_characters():
    text = tables.failures_text(
        [result(), result(error="Boom\n  at \x1b]0;x\x07 1", notebook="05")]
    )
    assert text == "FAILED 05\n  Boom\n    at ]0;x 1"
