"""Trainings compared and restored; and what is wrong with one is said."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.playground.trainings.tiny_trainings import (
    TINY,
    assert_same,
    browser,
    said,
    states,
    trainings,
)
from vqlib import TrainingDiverged, playground, train
from vqlib.playground.trainings import comparison, runview, worker
from vqlib.training import data

__all__ = ["trainings"]  # a fixture


# --- comparing, restoring ---


def test_restoring_brings_back_settings_use_and_pictures(trainings):
    trainings.set(decay=0.8, dead_code_threshold=2.0, reset_refill=2.5, learning_rate=3e-4)
    values = trainings.panel.values
    trainings.train("a", wait=True)
    picture = trainings.board.picture
    shown = {name: getattr(picture, name) for name in ("bars", "strip")}
    trainings.set(decay=0.1, reset_refill=0.0, seed=5)
    trainings.train("b", wait=True)
    assert picture.bars["counts"] != shown["bars"]["counts"]
    browser(trainings, "restore", "a")
    assert trainings.panel.values == values
    assert {name: getattr(picture, name) for name in shown} == shown
    assert [row["name"] for row in picture.rows if row["focus"]] == ["a"]
    assert "“a” (" in trainings.summary() and "decay 0.8" in trainings.summary()
    assert_same(trainings.run(trainings.train(wait=True)), trainings.run("a"))


def test_a_tick_shows_and_hides_a_run(trainings):
    for name in "ab":
        trainings.train(name, wait=True)
    browser(trainings, "show", "a", on=False)
    picture = trainings.board.picture
    assert [line["name"] for line in picture.lines] == ["b"]
    assert {row["name"]: row["shown"] for row in picture.rows} == {"a": False, "b": True}
    assert len(trainings.figure().axes[0].lines) == 2  # training and validation of one run
    browser(trainings, "show", "a", on=True)
    assert len(picture.lines) == 2 and len(trainings.figure().axes[0].lines) == 4


def test_each_run_has_its_own_line():
    looks = [runview.look(i) for i in range(28)]
    assert len(set(looks)) == 28
    assert all(a.color != b.color and a.dash != b.dash for a, b in itertools.pairwise(looks))


def test_the_table_tells_settings_and_results(trainings):
    trainings.set(decay=0.8)
    trainings.train("a", wait=True)
    row, run = trainings.table().iloc[0], trainings.run("a")
    assert (row["name"], row["state"], row["step"], row["decay"]) == ("a", "finished", 12, 0.8)
    assert row["val_utilization"] == run.summary["val_utilization"]
    (shown,) = trainings.board.picture.rows
    assert shown["settings"] == "decay 0.8"
    assert shown["results"] == [run.summary[name] for name in comparison.RESULTS[:3]]


# --- what is wrong is said ---


def test_a_refill_below_the_threshold_is_said_beside_it(trainings):
    with pytest.raises(ValueError, match="refill must be above threshold"):
        trainings.set(dead_code_threshold=2.0, reset_refill=1.0)
    assert list(trainings.panel.complaints) == ["reset_refill"]
    assert trainings.board.train.disabled
    with pytest.raises(ValueError, match="refill"):
        trainings.train()
    assert trainings.store.runs() == []
    trainings.set(reset_refill=3.0)
    assert not trainings.panel.complaints and not trainings.board.train.disabled


def test_a_batch_larger_than_the_data_is_said_beside_it(tmp_path):
    np.save(tmp_path / "few.npy", np.zeros((60, 8, 8), dtype=np.uint8))
    base = replace(TINY, dataset_dir=str(tmp_path / "few.npy"))
    trainings = playground.Trainings(tmp_path / "runs", base)
    trainings.panel.fields["batch_size"].value = 55
    assert "larger than the training set of 54" in trainings.panel.complaints["batch_size"]
    assert trainings.board.train.disabled


def test_signals_are_refused_because_nothing_draws_them(trainings, tmp_path):
    base = replace(TINY, dataset="eeg")
    with pytest.raises(
        ValueError, match="shows pictures, and eeg holds signals; use `vqlib train`"
    ):
        playground.Trainings(tmp_path / "others", base)
    train(base, trainings.store.path("signals"), progress=False)
    with pytest.raises(ValueError, match="eeg holds signals"):
        trainings.restore("signals")


def test_a_name_that_is_no_folder_is_said(trainings):
    trainings.board.name.value = "../up"
    assert "name must begin with a letter" in said(trainings) and trainings.board.train.disabled
    trainings.board.name.value = "fine"
    assert "name must" not in said(trainings) and not trainings.board.train.disabled
    assert trainings.train(wait=True) == "fine"


def test_a_divergence_is_said_and_kept_and_the_panel_goes_on(trainings):
    trainings.set(learning_rate=1000.0, warmup_steps=0)
    trainings.train("too fast")
    with pytest.raises(TrainingDiverged, match="not finite"):
        trainings.wait()
    assert "TrainingDiverged: the loss or its gradient is not finite" in said(trainings)
    assert states(trainings) == {"too fast": "diverged"}
    assert trainings.board.picture.rows[0]["problem"]
    assert all(w.isfinite().all() for w in trainings.run("too fast").model.parameters())
    trainings.set(learning_rate=1e-3, warmup_steps=4)
    trainings.train("slower", wait=True)
    assert states(trainings)["slower"] == "finished" and not trainings.board.complains


def test_what_goes_wrong_after_the_training_is_said_too(trainings, monkeypatch):
    monkeypatch.setattr(worker.Worker, "_close", lambda self: 1 / 0)
    trainings.train("a")
    with pytest.raises(ZeroDivisionError):
        trainings.wait()
    assert "ZeroDivisionError" in said(trainings) and not trainings.board.train.disabled
    assert states(trainings) == {"a": "finished"}


def test_a_training_refused_before_it_began_leaves_nothing(trainings, monkeypatch):
    monkeypatch.setattr(data, "of", lambda *_: 1 / 0)  # the pictures are gone
    trainings.train("a")
    with pytest.raises(ZeroDivisionError):
        trainings.wait()
    monkeypatch.undo()
    assert states(trainings) == {} and trainings.summary().startswith("No run yet")
    assert trainings.train("a", wait=True) == "a"


def test_an_error_in_a_click_is_said(trainings):
    browser(trainings, "restore", "nothing")
    assert "no run is called &#x27;nothing&#x27;" in said(trainings) and trainings.board.complains


def test_a_damaged_run_is_told_in_its_row(trainings):
    trainings.train("a", wait=True)
    (trainings.store.folder / "a" / "config.json").write_text("{")
    trainings.table()
    (row,) = trainings.board.picture.rows
    assert row["state"] == "unreadable" and row["problem"] and not row["resumable"]
    assert "cannot be read" in trainings.summary("a")
