"""The decision tree: each leaf names a finding and leads to a notebook that is there."""

import re

import pytest

from tests import ROOT
from vqlib.diagnosis.findings import IDS
from vqlib.lessons.figures import tree


@pytest.mark.parametrize("question", tree.QUESTIONS, ids=lambda q: q.finding)
def test_a_leaf(question):
    assert question.finding in IDS
    assert question.leaves in ("yes", "no")
    assert (ROOT / "notebooks" / f"{question.notebook}.ipynb").is_file()


def test_each_cause_of_disuse_has_its_leaf():
    leaves = [q.finding for q in tree.QUESTIONS]
    for early, late in (
        ("encoder-collapse", "dimensional-collapse"),
        ("commitment-outweighs-reconstruction", "reset-never-fires"),
        ("reset-never-fires", "resets-ended-too-early"),
    ):  # an encoder that gives no room is mended before any reset
        assert leaves.index(early) < leaves.index(late)


def test_every_leaf_is_a_link_in_the_figure():
    html = tree.tree().data
    links = re.findall(r'<a href="([^"]+)"', html)
    assert links == [f"{q.notebook}.ipynb" for q in tree.QUESTIONS]
    assert all(q.leaf in html and q.text in html for q in tree.QUESTIONS)
    assert tree.LAST in html
