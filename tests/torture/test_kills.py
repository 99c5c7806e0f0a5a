"""A small part of `make torture`, and that it can fail."""

import random
import signal
import time

import pytest

from tests.torture import kill_sweep, kills
from tests.torture.kill_sweep import PATIENCE, alive
from tests.torture.kills import Suite, Train, together, torture


def quiet(line: str) -> None:
    pass


def test_a_killed_training_and_a_killed_suite_end_as_if_never_killed(tmp_path):
    draw = random.Random(1)
    for victim, count in ((Train, 3), (Suite, 1)):
        found = torture(victim, tmp_path / victim.__name__, count, draw, quiet)
        assert (found["survived"], found["lost"]) == (count, 0) and found["ended"] > 0


def test_of_trainings_at_once_on_one_folder_one_goes_on(tmp_path):
    assert together(tmp_path, 1, quiet)["lost"] == 0


def test_the_workers_of_a_killed_sweep_end_too(tmp_path):
    sweep = kill_sweep.Sweep(tmp_path / "sweep", 2)
    process = sweep.start()
    while not sweep.whole():
        assert process.poll() is None
        time.sleep(0.05)
    assert len(alive(sweep.folder)) > 2
    kill_sweep.end(process, everybody=False)
    last = time.monotonic() + PATIENCE
    while alive(sweep.folder) and time.monotonic() < last:
        time.sleep(0.1)
    assert not alive(sweep.folder)


class Forgetful(Train):
    """What it leaves depends on whether it was killed."""

    def left(self):
        return super().left() | {"killed": self.folder.name != "undisturbed"}


class Lingering(Train):
    """Another process stays in its folder."""

    def whole(self):
        self.child = kills.begin(self.folder, ["diagnose", "/dev/stdin"], signal.pause)


def test_another_end_and_a_process_that_stays_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "PATIENCE", 1)
    lines = []
    assert torture(Forgetful, tmp_path / "a", 1, random.Random(1), lines.append)["lost"] == 1
    assert "it left something else: ['killed']" in lines[-1]
    victim = Lingering(tmp_path / "b")
    victim.whole()
    while not alive(victim.folder):  # it has yet to begin
        time.sleep(0.01)
    with pytest.raises(kills.Lost, match="processes live on"):
        kills.cleared(victim)
    kills.os.kill(victim.child, signal.SIGKILL)
    kills.wait(victim.child)
    kills.cleared(victim)
