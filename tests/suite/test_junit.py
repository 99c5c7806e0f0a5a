"""The results as JUnit XML: what a build server counts and shows."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from vqlib.suite import Result, junit
from vqlib.suite.costs import Cost
from vqlib.suite.gates import Gate, Verdict

GATES = (
    Verdict("a<b", 1.0, Gate(max=2), True),
    Verdict("loss", 3.14159265, Gate(max=2), False, "It & learns"),
    Verdict("gone", None, Gate(min=1), None),
)


@pytest.fixture
def root(tmp_path):
    results = [
        Result(
            "01_a", "full", {}, {"a<b": 1.0, "loss": 3.14159265}, Cost(2.5), Path(), None, GATES
        ),
        Result("02_b", "full", {}, {}, Cost(1.0), Path(), "Boom\x1b[31m\x00: no\nline 2"),
    ]
    junit.write(results, tmp_path / "junit.xml")
    return ElementTree.parse(tmp_path / "junit.xml").getroot()


def test_the_counts(root):
    counts = ("tests", "errors", "failures", "skipped")
    assert [root.get(count) for count in counts] == ["5", "1", "1", "1"]
    assert [[s.get(count) for count in counts] for s in root] == [
        ["4", "0", "1", "1"],
        ["1", "1", "0", "0"],
    ]
    assert [suite.get("time") for suite in root] == ["2.500", "1.000"]


def test_a_case_for_each_gate_and_one_for_the_notebook(root):
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert names == [
        ("01_a", "executes"),
        ("01_a", "a<b"),
        ("01_a", "loss"),
        ("01_a", "gone"),
        ("02_b", "executes"),
    ]


def test_a_failure_says_value_gate_and_claim(root):
    (failure,) = root.iter("failure")
    assert failure.get("message") == "loss is 3.14159; expected ≤ 2"
    assert failure.text == "loss is 3.14159; expected ≤ 2\nguards: It & learns"


def test_an_error_has_no_character_that_xml_cannot_hold(root):
    (error,) = root.iter("error")
    assert error.get("message") == "Boom\ufffd[31m\ufffd: no" and error.text.endswith("line 2")


def test_the_records_are_properties(root):
    found = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert found == {"a<b": "1.0", "loss": "3.14159265"}
