"""Findings, their order and how they print; and the HTML card."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from vqlib.diagnosis.findings import (
    IDS,
    Curve,
    Diagnosis,
    Evidence,
    Finding,
    card,
    clear,
    fired,
    not_applicable,
    unknown,
)

WARNING = fired(
    "reset-churn",
    "warning",
    Evidence("resets", 12.3456, "codes", "steps 1 to 9"),
    cause="Too many <b>resets</b>.",
    remedy="use 0.5",
)
CRITICAL = fired("codebook-collapse", "critical", Evidence("used", 3), None, cause="C.", remedy="R")
OPEN = unknown("encoder-drift", "Not measured.", "drift")
ABSENT = not_applicable("duplicate-codes", "No.")
MIXED = Diagnosis.of(
    "mine",
    [OPEN, clear("cold-start"), WARNING, ABSENT, CRITICAL],
    {
        "utilization (train)": Curve([(1, 1.0), (9, 0.2)], share=True),
        "resets (train)": Curve([(1, 0.0)]),
    },
)


def test_design_ids_are_all_there():
    design = """codebook-collapse encoder-collapse encoder-drift threshold-above-share reset-churn
    reset-never-fires reset-does-not-survive evaluation-changes-counts cold-start
    first-step-explosion duplicate-codes ranks-disagree train-validation-gap top-code-dominates
    window-too-small unstable-training healthy"""
    assert set(design.split()) <= set(IDS)


def test_an_unknown_id_or_severity_is_refused():
    with pytest.raises(ValueError, match="unknown finding id 'collapse'"):
        Finding("collapse", "note")
    with pytest.raises(ValueError, match="severity must be one of"):
        Finding("healthy", "fatal")


def test_answers_stand_gravest_first():
    assert [a.severity for a in MIXED.answers] == [
        "critical",
        "warning",
        "clear",
        "unknown",
        "not applicable",
    ]
    assert MIXED.findings == (CRITICAL, WARNING)
    assert MIXED.unknown == (OPEN,)
    assert MIXED["reset-churn"] is WARNING
    with pytest.raises(KeyError):
        MIXED["healthy"]


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([WARNING, CRITICAL], "critical"),
        ([WARNING], "warning"),
        ([OPEN], "undecided"),
        ([fired("healthy", "note", cause="", remedy="")], "healthy"),
    ],
)
def test_verdict(answers, verdict):
    assert Diagnosis.of("t", answers).verdict == verdict


def test_text_holds_everything_that_a_person_needs():
    text = str(MIXED)
    assert text.startswith("mine: critical")
    assert "resets: 12.35 codes (steps 1 to 9)" in text
    assert "not found: cold-start" in text and "not applicable: duplicate-codes" in text
    assert "encoder-drift: Not measured. Needs drift." in text
    assert max(map(len, text.splitlines())) <= 96


def test_the_card_is_well_formed_and_escapes_what_it_is_given():
    html = card(MIXED)
    assert "Too many &lt;b&gt;resets" in html and "12.35" in html
    assert MIXED._repr_html_() == html
    ElementTree.fromstring(html)
    (points,) = re.findall(r'points="([^"]+)" ', html)[:1]
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in points.split())
    assert x0 < x1 and y0 < y1  # a falling curve falls
    assert "http" not in html and "<script" not in html


def test_a_subject_is_named():
    html = card(Diagnosis.of("t", [Finding("healthy", "note", subject="vq.1")]))
    assert "vq.1" in html
    assert "[vq.1]" in str(Diagnosis.of("t", [Finding("healthy", "note", subject="vq.1")]))
