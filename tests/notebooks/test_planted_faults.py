"""Every planted fault, executed at the quick profile: it turns its gates red."""

from tests.notebooks.test_executed import NOTEBOOKS, QUIET
from vqlib import suite


def test_each_planted_fault_turns_its_gates_red(tmp_path):
    missed = suite.run_controls("quick", tmp_path, **QUIET)
    assert not missed, missed


def test_each_gate_is_broken_by_some_planted_fault():
    expected = suite.load_expected(NOTEBOOKS)
    assert suite.gates_without_control(expected) == []


def test_each_gate_says_which_claim_it_guards():
    expected = suite.load_expected(NOTEBOOKS)
    gated = {(nb, name) for nb, gates in expected.records.items() for name in gates if gates[name]}
    assert gated and gated == set(expected.claims)
