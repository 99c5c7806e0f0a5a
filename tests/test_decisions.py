"""The decision tree: each leaf names a finding and leads to a notebook that is there."""

import re
from pathlib import Path

import pytest

from vqlib import decisions
from vqlib.findings import IDS

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


@pytest.mark.parametrize("question", decisions.QUESTIONS, ids=lambda q: q.finding)
def test_a_leaf(question):
    assert question.finding in IDS
    assert question.leaves in ("yes", "no")
    assert (NOTEBOOKS / f"{question.notebook}.ipynb").is_file()


def test_every_leaf_is_a_link_in_the_figure():
    html = decisions.tree().data
    links = re.findall(r'<a href="([^"]+)"', html)
    assert links == [f"{q.notebook}.ipynb" for q in decisions.QUESTIONS]
    assert all(q.leaf in html and q.text in html for q in decisions.QUESTIONS)
    assert decisions.LAST in html
