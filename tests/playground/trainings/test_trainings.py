"""Trainings: train, watch, stop, keep and go on."""

import signal
import threading
import time

import numpy as np
import pytest

from tests.playground.trainings.tiny_trainings import (
    TINY,
    assert_same,
    browser,
    long,
    said,
    states,
    trainings,
    until,
)
from vqlib import Run, playground, train
from vqlib.playground.trainings import worker

__all__ = ["long", "trainings"]  # fixtures


def steps_of(line):
    return np.frombuffer(line["train"], np.float32).reshape(-1, 4)[:, 0]


# --- training ---


def test_a_training_is_the_real_one_to_the_last_bit(trainings, monkeypatch):
    monkeypatch.setattr(worker, "FRAME_SECONDS", 0)  # looked at as often as can be
    monkeypatch.setattr(worker, "PICTURE_SECONDS", 0)
    trainings.set(decay=0.8, seed=3)
    name = trainings.train(wait=True)
    assert name == "decay 0.8, seed 3"
    plain = train(trainings.run(name).config, progress=False)
    assert (plain.config.decay, plain.config.seed, plain.config.dim) == (0.8, 3, 8)
    assert_same(trainings.run(name), plain)
    assert "finished; in validation" in trainings.summary()


def test_curves_use_and_pictures_stream_in(trainings, monkeypatch):
    monkeypatch.setattr(worker, "FRAME_SECONDS", 0)
    lives, uses, strips = [], [], []
    picture = trainings.board.picture
    picture.observe(lambda change: lives.append(change.new), "live")
    picture.observe(lambda change: uses.append(change.new["where"]), "bars")
    picture.observe(lambda change: strips.append(change.new), "strip")
    trainings.train("a", wait=True)
    ends = [steps_of(line)[-1] for line in lives if line]
    assert ends[:12] == list(range(1, 13))
    assert uses[0] == "training step 1" and uses[-1] == "validation, step 12"
    assert picture.live == {} and [line["name"] for line in picture.lines] == ["a"]
    n, h, w = strips[-1]["size"]
    assert len(strips[-1]["reconstructions"]) == len(strips[-1]["originals"]) == n * h * w * 3
    assert strips[-1]["reconstructions"] != strips[0]["reconstructions"]


def test_the_frames_come_at_most_four_times_a_second(long):
    seen = []
    long.board.picture.observe(lambda change: seen.append(time.monotonic()), "live")
    until(lambda: len(seen) >= 6)
    assert seen[-1] - seen[0] >= 5 * 0.9 * worker.FRAME_SECONDS


def test_progress_tells_the_steps_and_the_time_left(long):
    until(lambda: " s left" in long.board._progress.value)
    assert '<progress max="3000" value="' in long.board._progress.value
    long.stop(), long.wait()
    assert long.board._progress.value == ""


def test_the_rest_of_the_notebook_is_free_meanwhile(long):
    before = long._worker.step
    long.set(decay=0.5)
    long.table()
    assert long._worker.step < 3000  # neither waited for the end
    until(lambda: long._worker.step > before)
    assert long.store.find("long").config.decay == 0.9
    assert threading.active_count() > 1 and long._worker.busy


def test_one_at_a_time(long):
    assert long.board.train.disabled and not long.board.stop.disabled
    with pytest.raises(RuntimeError, match="'long' is training"):
        long.train()
    with pytest.raises(TimeoutError, match="'long' is still training: step"):
        long.wait(0.01)


# --- stopping, keeping ---


def test_an_interrupt_of_the_kernel_stops_what_is_waited_for(long, monkeypatch):
    monkeypatch.setattr(worker.Worker, "_close", lambda self: time.sleep(0.5))
    to = threading.main_thread().ident, signal.SIGINT
    threading.Timer(0.2, signal.pthread_kill, to).start()
    with pytest.raises(KeyboardInterrupt):
        long.wait(10)
    long.wait(5)
    assert "stopped at step" in said(long)
    assert states(long) == {"long": "stopped"}


def test_stop_ends_it_after_the_step_under_way_and_keeps_the_run(tmp_path):
    trainings = playground.Trainings(tmp_path)
    trainings.set(steps=600)
    trainings.board.train.click()
    until(lambda: trainings._worker.step >= 25)
    trainings.board.stop.click()
    asked = trainings._worker.step
    trainings.wait(60)
    (kept,) = trainings.store.runs()
    run = Run.load(tmp_path / kept.name)
    assert run.summary["stopped"] and 25 <= run.summary["steps"] == kept.step <= asked + 1
    assert f"stopped at step {kept.step} of 600" in said(trainings)
    assert trainings.board.stop.disabled and not trainings.board.train.disabled


def test_a_stopped_run_is_gone_on_with_to_the_last_bit(trainings):
    trainings.set(steps=200)
    name = trainings.train()
    until(lambda: trainings._worker.step >= 3)
    trainings.stop(), trainings.wait()
    assert trainings.store.find(name).step < 200
    trainings.set(steps=7, decay=0.1)  # going on asks the run, not the controls
    browser(trainings, "resume", name)
    trainings.wait()
    assert states(trainings) == {name: "finished"}
    assert_same(trainings.run(name), train(trainings.run(name).config, progress=False))


def test_what_is_finished_cannot_be_gone_on_with(trainings):
    trainings.train("a", wait=True)
    with pytest.raises(ValueError, match="'a' is finished; only a stopped or an interrupted"):
        trainings.resume("a")


def test_two_runs_of_one_name_are_two(trainings):
    names = [trainings.train("a", wait=True) for _ in range(2)]
    assert names == ["a", "a 2"] == list(trainings.table()["name"])


def test_another_kernel_finds_the_runs_again(trainings):
    trainings.train("a", wait=True)
    again = playground.Trainings(trainings.store.folder, TINY)
    assert states(again) == {"a": "finished"}
    assert again.board.picture.lines == trainings.board.picture.lines != []


def test_an_interrupted_run_shows_and_goes_on(trainings, monkeypatch):
    def die(self, trainer, now):
        if self.step == 6:
            raise OSError("no space left")

    monkeypatch.setattr(worker, "FRAME_SECONDS", 0)
    monkeypatch.setattr(worker.Worker, "_look", die)
    trainings.train("a")
    with pytest.raises(OSError, match="no space left"):
        trainings.wait()
    assert "OSError: no space left" in said(trainings) and trainings.board.complains
    monkeypatch.undo()
    again = playground.Trainings(trainings.store.folder, TINY)
    (row,) = again.board.picture.rows
    assert (row["state"], row["step"], row["resumable"]) == ("interrupted", 4, True)
    again.restore("a")
    assert "interrupted at step 4 of 12" in again.summary()
    again.resume("a", wait=True)
    assert_same(again.run("a"), train(TINY, progress=False))


def test_a_panel_made_anew_finds_the_training_under_way(long):
    again = playground.Trainings(long.store.folder, TINY)
    assert again.board.train.disabled and not again.board.stop.disabled
    assert again.board.picture.rows[0]["state"] == "under way"
    until(lambda: again.board.picture.live)
    again.stop(), again.wait()
    assert states(again) == {"long": "stopped"}


# --- nothing grows without bound ---


def test_a_long_curve_is_thinned_evenly():
    curve = worker.Curve()
    for step in range(1, 100_001):
        curve.add((step, 0.5, 1.0, 2.0))
    steps = curve.array()[:, 0]
    assert worker.CURVE_POINTS <= len(steps) <= 2 * worker.CURVE_POINTS + 1
    assert steps[0] == 1 and steps[-1] == 100_000
    assert len(set(np.diff(steps)[:-1])) == 1
