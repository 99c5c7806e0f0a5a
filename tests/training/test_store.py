"""RunStore: every run keeps its folder, and says honestly what became of it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import ROOT
from tests.training.tiny_training import assert_same_run, quiet, tiny
from vqlib import TrainingDiverged
from vqlib.training import store as store_module
from vqlib.training.store import RunInUse, RunStore
from vqlib.training.trainer import Trainer


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


def stop_at(step):
    return lambda trainer: trainer.stop() if trainer.step == step else None


def raise_at(step):
    def callback(trainer):
        if trainer.step == step:
            raise OSError("no space left")

    return callback


def begun(store, name, callback=None, **changes):
    name = store.new(name)
    store.train(name, tiny(**changes), [callback] if callback else [])
    return name


def test_an_empty_store_makes_no_folder(store):
    assert store.runs() == [] and not store.folder.exists()


def test_what_became_of_each_run_is_told(store):
    begun(store, "whole")
    begun(store, "cut short", stop_at(5))
    with pytest.raises(OSError, match="no space left"):
        begun(store, "broken", raise_at(6))
    with pytest.raises(TrainingDiverged):
        begun(store, "too fast", learning_rate=1000.0, warmup_steps=0)
    told = [(k.name, k.state, k.step, k.steps, k.resumable) for k in store.runs()]
    assert told == [
        ("whole", "finished", 12, 12, False),
        ("cut short", "stopped", 5, 12, True),
        ("broken", "interrupted", 4, 12, True),
        ("too fast", "diverged", 0, 12, False),
    ]
    assert "not finite at step" in store.find("too fast").problem


def test_a_run_comes_back_as_it_was(store):
    begun(store, "whole")
    assert_same_run(store.load("whole"), quiet(tiny()))


@pytest.mark.parametrize("callback", [stop_at(5), raise_at(6)], ids=["stopped", "interrupted"])
def test_what_is_not_finished_is_gone_on_with_to_the_last_bit(store, callback):
    try:
        name = begun(store, "a", callback)
    except OSError:
        name = "a"
    store.train(name)
    assert store.find(name).state == "finished"
    assert_same_run(store.load(name), quiet(tiny()))


def test_an_interrupted_run_is_read_at_its_last_checkpoint(store):
    with pytest.raises(OSError):
        begun(store, "a", raise_at(6))
    at_4 = store.load("a")
    assert at_4.summary["steps"] == 4 and at_4.history["step"].max() == 4
    assert_same_run(at_4, _checkpoint_of(tiny(), 4))


def _checkpoint_of(config, step):
    kept = []
    quiet(config, callbacks=[lambda t: kept.append(t.state()) if t.step == step else None])
    trainer = Trainer(config)
    trainer.load_state(*kept[0])
    return trainer.kept()


def test_the_same_name_gets_another_folder(store):
    assert [store.new("a") for _ in range(3)] == ["a", "a 2", "a 3"]
    long = "x" * store_module.LONGEST_NAME
    assert len({store.new(long) for _ in range(12)}) == 12


def test_many_at_once_get_a_folder_each(store):
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: store.new("a"), range(40)))
    assert len(set(names)) == 40


@pytest.mark.parametrize(
    "name", ["", "  ", "../up", "a/b", ".hidden", "a.", "x" * 61, "a\nb", "-a"]
)
def test_a_name_that_is_no_folder_is_refused(store, name):
    with pytest.raises(ValueError, match="name must begin with a letter or a digit"):
        store.new(name)
    assert not store.folder.exists()


def test_settings_refused_before_the_start_leave_no_run(store):
    name = store.new("a")
    with pytest.raises(ValueError, match="batch_size 5000 is larger"):
        store.train(name, tiny(batch_size=5000))
    assert store.runs() == [] and not (store.folder / "a").exists()


def test_an_unknown_run_is_told_with_the_near_name(store):
    begun(store, "whole", steps=1)
    with pytest.raises(ValueError, match="did you mean `whole`"):
        store.load("wole")


def test_a_damaged_run_is_told_and_does_not_hide_the_others(store):
    begun(store, "good", steps=1)
    begun(store, "bad", steps=1)
    (store.folder / "bad" / "summary.json").write_text("{")
    (store.folder / "notes").mkdir()  # not a run
    assert [k.state for k in store.runs()] == ["finished", "unreadable"]
    with pytest.raises(ValueError, match=r"'bad' in .* cannot be read"):
        store.load("bad")


def test_the_newest_comes_last_and_going_on_makes_new(store):
    begun(store, "a", stop_at(2))
    begun(store, "b", steps=1)
    store.train("a")
    assert [k.name for k in store.runs()] == ["b", "a"]


def test_a_run_under_way_is_nobody_elses(store):
    seen = []

    def look(trainer):
        if trainer.step == 5:
            seen.append(store.find("a"))
            with pytest.raises(RunInUse, match="'a' is being trained in another panel"):
                RunStore(store.folder).train("a")

    thread = threading.Thread(target=begun, args=(store, "a", look))
    thread.start(), thread.join()
    assert (seen[0].state, seen[0].step, seen[0].resumable) == ("under way", 4, False)
    assert store.find("a").state == "finished"


def test_a_run_whose_process_was_killed_is_interrupted_and_goes_on(store):
    config = tiny(steps=200, checkpoint_every=5)
    code = (
        "import json, sys\nfrom vqlib import TrainConfig\n"
        "from vqlib.training.store import RunStore\n"
        "store, config = RunStore(sys.argv[1]), TrainConfig.from_dict(json.loads(sys.argv[2]))\n"
        "store.train(store.new('a'), config)"
    )
    command = [sys.executable, "-c", code, str(store.folder), json.dumps(config.to_dict())]
    child = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 60
        while not ((store.folder / "a" / "config.json").is_file() and store.find("a").step >= 10):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        assert store.find("a").state == "under way"
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    kept = store.find("a")
    assert kept.state == "interrupted" and 10 <= kept.step < 200
    store.train("a")
    assert_same_run(store.load("a"), quiet(config))


def test_make_clean_leaves_a_persons_runs_alone():
    makefile = (ROOT / "Makefile").read_text()
    (removed,) = re.findall(r"^clean:\n\trm -rf (.*)$", makefile, flags=re.MULTILINE)
    assert not {"data", "data/", "data/*", "data/runs"} & set(removed.split())


def test_the_folder_is_chosen_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("VQLIB_RUNS", str(tmp_path))
    assert RunStore().folder == tmp_path
    monkeypatch.delenv("VQLIB_RUNS")
    assert RunStore().folder.parts[-2:] == ("data", "runs")
