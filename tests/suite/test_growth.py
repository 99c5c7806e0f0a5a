"""What a training step costs: the kept measurement, on the front page of the suite's report."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from tests import ROOT
from tests.benchmarks import bench_growth
from vqlib.suite import growth, report

COSTS = {
    "N": pd.Series({1000: 0.01, 2000: 0.02, 4000: 0.04, 8000: 0.08}),
    "K": pd.Series({100: 0.01, 200: 0.01, 400: 0.02, 800: 0.08}),
    "D": pd.Series({8: 0.01, 16: 0.01, 32: 0.01, 128: 0.02}),
}


@pytest.fixture
def kept(tmp_path):
    bench_growth.table(COSTS).to_csv(tmp_path / "growth.csv", index=False)
    plt.figure(figsize=(1, 1)).savefig(tmp_path / "growth.png")
    return tmp_path


def front(folder, monkeypatch, kept, **options):
    monkeypatch.setattr(report.growth, "read", lambda read=growth.read: read(kept))
    written = report.write([], folder, profile="full", **options)
    return BeautifulSoup((written / "index.html").read_text(encoding="utf-8"), "html.parser")


def test_the_report_shows_the_exponents_and_where_they_come_from(kept, tmp_path, monkeypatch):
    section = front(tmp_path / "report", monkeypatch, kept).select_one("section:has(#cost)")
    assert [sup.text for sup in section.select("sup")] == ["1.00", "2.00", "0.50"]
    assert bench_growth.COMMAND in section.text and str(pd.Timestamp.today().year) in section.text
    assert section.img["alt"] == growth.Growth.ALT and section.img["src"].startswith("data:image")


def test_nothing_is_shown_where_nothing_is_kept(kept, tmp_path, monkeypatch):
    assert growth.read(tmp_path / "not there") is None
    (kept / "growth.png").unlink()
    assert not front(tmp_path / "report", monkeypatch, kept).select("#cost")


def test_a_report_on_other_notebooks_does_not_show_it(kept, tmp_path, monkeypatch):
    theirs = [ROOT / "notebooks" / "01_reproduce_collapse.ipynb"]
    assert not front(tmp_path / "report", monkeypatch, kept, sources=theirs).select("#cost")


def test_what_the_repository_keeps_can_be_read():
    found = growth.read()
    assert found is not None and list(found.exponents) == ["N", "K", "D"]
