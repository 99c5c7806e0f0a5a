"""Claims on trial, their rule at its edges, and a bibliography in which nothing is left over."""

import math
import re
from dataclasses import replace

import nbformat
import pandas as pd
import pytest

from tests import NOTEBOOKS
from vqlib.lessons import beds, fronts, papers
from vqlib.lessons.remedies import REMEDIES

NAN = math.nan


def table(shift, column="utilization", seeds=8):
    """Every remedy on both beds; "reset" differs by ``shift`` from all others, on each seed."""
    rows = [
        {"bed": bed, "arm": arm, "seed": s}
        | dict.fromkeys(beds.COLUMNS, 0.5 + 0.01 * s)
        | ({column: 0.5 + 0.01 * s + shift[s % len(shift)]} if arm == "reset" else {})
        for bed in beds.BEDS
        for arm in beds.arms(bed, REMEDIES)
        for s in range(seeds)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("low", "high", "sign", "verdict"),
    [
        (0.1, 30.0, +1, "same direction"),
        (0.1, 0.3, +1, "same direction"),  # direction, not size
        (-0.1, 4.9, +1, "not"),
        (-30.0, -0.1, +1, "not"),
        (-0.1, 5.1, +1, "undecided"),
        (-30.0, -0.1, -1, "same direction"),
        (-4.9, 0.1, -1, "not"),
        (-5.1, 0.1, -1, "undecided"),
        (0.0, 9.0, +1, "undecided"),
        (NAN, NAN, +1, "undecided"),
    ],
)
def test_the_rule(low, high, sign, verdict):
    assert papers.direction(low, high, sign) == verdict


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [([0.3], "same direction"), ([-0.3], "not"), ([0.0], "not"), ([0.3, -0.3], "undecided")],
)
def test_a_claim_is_judged_by_its_pairs(shift, verdict):
    judged = papers.trial(table(shift))
    row = judged[judged["arm"] == "reset"].iloc[0]
    assert row["verdict"] == verdict
    assert row["mean"] == pytest.approx(100 * sum(shift) / len(shift))
    assert row["after"] - row["before"] == pytest.approx(sum(shift) / len(shift))


def test_what_is_no_utilization_is_judged_in_per_cent():
    claim = replace(papers.CLAIMS[0], column="error", rises=False)
    change = papers.changes(table([-0.1], "error"), claim)
    assert change[0] == pytest.approx(-20.0) and change[5] == pytest.approx(-10 / 0.55)


def test_every_claim_can_be_read_in_the_trial():
    for claim in papers.CLAIMS:
        assert {claim.arm, claim.against} <= set(beds.arms(claim.bed, REMEDIES))
        assert claim.column in beds.COLUMNS and claim.column in fronts.MEASURES
        assert claim.source in papers.references() and claim.differs
    text = papers.as_text(papers.trial(table([0.3])))
    assert len(text) == len(papers.CLAIMS)
    assert text.loc[0, "change"] == "+30.0 [+30.0, +30.0] points"
    assert text.loc[0, "from, to"] == "53.5%, 83.5%"
    assert not set(text["paper"]) & set(papers.references())


CITED = re.compile(r'\[([^\]]+)\]\(#References "(\w+)"\)')


def texts():
    return [
        cell.source
        for path in NOTEBOOKS
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    ]


def cited():
    keys = {key for text in texts() for _, key in CITED.findall(text)}
    return keys | {r.source for r in REMEDIES.values()} | {c.source for c in papers.CLAIMS}


def test_what_is_cited_is_in_the_bibliography_and_nothing_else_is():
    assert cited() == set(papers.references())


def test_a_reader_sees_names_and_years_not_keys():
    found = [both for text in texts() for both in CITED.findall(text)]
    assert len(found) >= 4 and all(shown == papers.label(key) for shown, key in found)
    assert not [text for text in texts() if "[@" in text]
    assert papers.label("roy2007") == "Roy and Vetterli 2007"
    assert papers.label("kolesnikov2022") == "Kolesnikov et al. 2022"


def test_an_entry_says_what_a_reader_needs():
    for key, entry in papers.references().items():
        assert {"title", "year"} <= set(entry), key
        assert "eprint" in entry or "howpublished" in entry, key
        assert re.fullmatch(r"\d{4}\.\d{5}", entry.get("eprint", "2000.00000")), key
    lines = papers.bibliography().splitlines()
    assert len(lines) == len(papers.references()) == papers.BIBLIOGRAPHY.read_text().count("\n@")
    assert lines[1].startswith("- **van den Oord et al. 2017.** Neural Discrete")
    assert any(line.startswith("- **Łańcucki et al. 2020.** ") for line in lines)
    keys = papers.references().keys() - {"guide"}
    assert not [key for key in keys if any(key in line for line in lines)]
