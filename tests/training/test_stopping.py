"""Trainer.stop: a training that is ended early leaves a whole run, and can be gone on with."""

import threading
import time

import pytest

from tests.training.tiny_training import assert_same_run, quiet, tiny
from vqlib import Run, TrainingDiverged
from vqlib.training.trainer import Trainer


def stop_at(step):
    return lambda trainer: trainer.stop() if trainer.step == step else None


@pytest.mark.parametrize("stop", [1, 6, 7])
def test_a_stopped_run_is_whole_and_goes_on_as_if_never_stopped(tmp_path, stop):
    config = tiny(trace_every=3, dead_code_threshold=1.0)
    stopped = quiet(config, tmp_path, callbacks=[stop_at(stop)])
    assert (stopped.summary["stopped"], stopped.summary["steps"]) == (True, stop)
    assert stopped.history["step"].max() == stop
    assert stopped.split("val")["step"].iloc[-1] == stop  # of the very weights that are kept
    assert_same_run(Run.load(tmp_path), stopped)
    resumed = quiet(config, tmp_path, resume=True)
    assert_same_run(resumed, quiet(config))
    assert resumed.summary["stopped"] is False
    assert_same_run(Run.load(tmp_path), resumed)


def test_stopping_at_the_last_step_is_finishing():
    run = quiet(tiny(), callbacks=[stop_at(12)])
    assert (run.summary["stopped"], run.summary["steps"]) == (False, 12)


def test_another_thread_can_stop_it_before_it_has_begun():
    trainer = Trainer(tiny())
    threading.Thread(target=trainer.stop).start()
    while not trainer.stopped:
        time.sleep(0.001)
    assert trainer.run(progress=False).summary["steps"] == 1


def test_stopping_where_the_validation_is_not_finite_is_no_success(tmp_path):
    def spoil(trainer):
        if trainer.step == 7:
            next(trainer.model.decoder.parameters()).data[0, 0, 0, 0] = float("nan")
            trainer.stop()

    with pytest.raises(TrainingDiverged, match="the last good state, of step 4"):
        quiet(tiny(), tmp_path, callbacks=[spoil])
    assert not (tmp_path / "summary.json").exists()
