"""vqlib diff: what changed between two reports."""

import json
import re
from pathlib import Path

import pytest

from tests.suite.tiny_suite import execute_here, parameters, write_notebook, write_settings
from vqlib import cli
from vqlib.suite import difference, executing
from vqlib.suite.difference import Change
from vqlib.suite.errors import SuiteError


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """Two runs of a tiny suite, the second with other parameters."""
    monkeypatch.setattr(executing, "execute", execute_here)
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "notebooks"
    cell = parameters("x = 1.0\nfail = False")
    write_notebook(
        directory, "01_a", cell, "assert not fail", "record('x', x)", "record('same', 3)"
    )
    write_notebook(directory, "02_b", parameters())
    write_settings(directory, '[01_a.records]\n"x" = { max = 1.5 }\n"same" = {}\n', full="")
    assert cli.main(["check", "--out", "one"]) == 0

    def second(*arguments: str, expected: str = ""):
        if expected:
            (directory / "expected.toml").write_text(expected, encoding="utf-8")
        cli.main(["check", "--out", "two", *arguments])
        return difference.between(Path("one"), Path("two/report"))

    return second


def test_nothing_changed(reports):
    found = reports()
    assert not found.verdicts and not found.numbers and not found.context and not found.worse
    assert str(found).count("no change") == 3
    assert cli.main(["diff", "one", "two"]) == 0


def test_a_number_moves_and_its_gate_goes_red(reports, capsys):
    found = reports("--set", "x=2.0")
    assert found.numbers == [Change("01_a", "x", "1", "2", "+100 %")]
    assert found.verdicts == [Change("01_a", "x", "pass (≤ 1.5)", "FAIL (≤ 1.5)", "WORSE")]
    assert found.context == [Change("01_a", "x", "1.0", "2.0")] and found.worse
    capsys.readouterr()
    assert cli.main(["diff", "one/report", "two/report/results.json"]) == 1
    assert "FAIL (≤ 1.5)" in capsys.readouterr().out
    assert cli.main(["diff", "two", "one"]) == 0  # better is not worse
    assert re.search(r"FAIL \(≤ 1.5\) +pass \(≤ 1.5\) +better", capsys.readouterr().out)


def test_a_number_moves_inside_its_gate(reports):
    found = reports("--set", "x=1.1")
    assert [c.note for c in found.numbers] == ["+10 %"] and not found.verdicts and not found.worse


def test_a_notebook_that_fails(reports):
    found = reports("--set", "fail=true")
    assert found.verdicts[0] == Change("01_a", "the notebook", "ran", "failed", "WORSE")
    assert ("x", "1", "–") in [(c.what, c.before, c.after) for c in found.numbers]


def test_a_notebook_that_is_gone_and_one_that_came(reports):
    found = reports("02")
    assert found.verdicts == [Change("01_a", "the notebook", "there", "not there", "WORSE")]
    assert not difference.between(Path("two"), Path("one")).worse


def test_a_gate_that_is_gone_or_wider(reports):
    found = reports(expected='[01_a.records]\n"x" = {}\n"same" = { max = 3 }\n')
    rows = [(c.what, c.before, c.after, c.note) for c in found.verdicts]
    assert rows == [
        ("x", "pass (≤ 1.5)", "no gate", "WORSE"),
        ("same", "no gate", "pass (≤ 3)", ""),
    ]
    found = reports(expected='[01_a.records]\n"x" = { max = 9 }\n"same" = {}\n')
    assert [(c.after, c.note) for c in found.verdicts] == [("pass (≤ 9)", "")]


def test_costs_that_move_by_more_than_a_tenth(reports):
    reports()
    path = Path("two/report/results.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["notebooks"][0] |= {"seconds": 0.105, "memory_mb": 75.0}
    path.write_text(json.dumps(content), encoding="utf-8")
    found = difference.between(Path("one"), Path("two"))
    assert found.numbers == [Change("01_a", "memory_mb", "50", "75", "+50 %")]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"notebooks": [3]}'])
def test_what_is_no_report_is_refused_in_one_line(tmp_path, text, capsys):
    with pytest.raises(SuiteError, match=r"expected a report, found no results\.json"):
        difference.between(tmp_path, tmp_path)
    (tmp_path / "results.json").write_text(text, encoding="utf-8")
    assert cli.main(["diff", str(tmp_path), str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "not the results of a report" in said and said.count("\n") == 1
