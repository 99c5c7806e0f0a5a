"""Kept trials: a table with its date and command, whole or not at all."""

import importlib
import re

import pandas as pd
import pytest

from tests import ROOT
from vqlib.lessons import trials
from vqlib.lessons.trials.__main__ import NAMES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "FOLDER", tmp_path / "trials")
    return tmp_path / "trials"


def table(seeds, problem=""):
    return pd.DataFrame({"arm": "a", "seed": seeds, "value": 0.5, "problem": problem})


def test_what_is_written_is_read_and_says_where_it_came_from(folder):
    trials.write("mine", table([3, 4, 5]))
    assert trials.read("mine").to_dict("list") == {
        "arm": ["a"] * 3,
        "seed": [3, 4, 5],
        "value": [0.5] * 3,
    }
    said = trials.provenance("mine")
    assert "3 runs of 20" in said and "seeds 3 to 5" in said
    assert "`python -m vqlib.lessons.trials mine`" in said


def test_seeds_that_are_no_range_are_listed(folder):
    trials.write("mine", table([0, 7]))
    assert "seeds 0, 7" in trials.provenance("mine")


def test_a_failed_run_leaves_the_kept_table_as_it_was(folder):
    trials.write("mine", table([1, 2]))
    before = (folder / "mine.csv").read_bytes()
    with pytest.raises(RuntimeError, match=r"1 of 2 runs failed.*a: out of memory"):
        trials.write("mine", table([1, 2], ["", "out of memory"]))
    assert (folder / "mine.csv").read_bytes() == before
    assert [f.name for f in folder.iterdir()] == ["mine.csv"]


def test_a_trial_that_was_never_run_names_its_command(folder):
    with pytest.raises(FileNotFoundError, match=r"trials mine` makes it"):
        trials.read("mine")


@pytest.mark.parametrize("name", NAMES)
def test_each_trial_is_kept_and_listed(name):
    assert callable(importlib.import_module(f"vqlib.lessons.trials.{name}").run)
    kept = pd.read_csv(ROOT / "data" / "trials" / f"{name}.csv")
    assert tuple(kept.columns[: len(trials.DATED)]) == trials.DATED
    assert set(kept["command"]) == {f"python -m vqlib.lessons.trials {name}"}
    assert kept["date"].str.fullmatch(r"\d{4}-\d\d-\d\d").all() and "seed" in kept
    assert not kept.drop(columns=[c for c in kept if c == "accuracy"]).isna().all().any()
    assert f"| `{name}.csv` |" in (ROOT / "data" / "README.md").read_text()


def test_no_table_is_kept_without_its_trial():
    kept = {file.stem for file in (ROOT / "data" / "trials").glob("*")}
    assert kept == set(NAMES)


def test_the_tables_name_no_machine():
    for file in (ROOT / "data" / "trials").glob("*.csv"):
        assert not re.search(r"/(home|work|tmp|root)/", file.read_text())
