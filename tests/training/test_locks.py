"""One process at a time in a folder; whoever was killed is no obstacle, and leaves nothing."""

import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from tests.training.tiny_training import assert_same_run, quiet, tiny
from vqlib import cli
from vqlib.training import checkpoints, locks, runs
from vqlib.training.locks import FolderInUse
from vqlib.training.store import RunInUse, RunStore
from vqlib.training.sweepfile import claimed, plan

HOLDER = (
    "import sys\nfrom pathlib import Path\nfrom vqlib.training import locks\n"
    "with locks.alone(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


@contextmanager
def holder(folder):
    """Another process that holds the folder; killed afterwards."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], **pipes)
    with child:
        try:
            assert child.stdout.readline() == b"held\n"
            yield child.pid
        finally:
            child.kill()


def test_of_many_at_once_one_goes_on_and_the_others_know_whom_to_ask(tmp_path):
    start, end, outcomes = threading.Barrier(8), threading.Event(), []

    def one():
        start.wait()
        try:
            with locks.alone(tmp_path / "out"):
                outcomes.append("held")
                end.wait(10)
        except FolderInUse as error:
            outcomes.append(error.holder)
            if len(outcomes) == 8:
                end.set()

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [os.getpid()] * 7 + ["held"]


def test_training_resuming_the_store_and_a_sweep_are_refused_with_the_holder(tmp_path, capsys):
    quiet(tiny(steps=2), tmp_path / "run")
    store, sweep = RunStore(tmp_path), plan({"arms": {"a": {}}})
    with holder(tmp_path / "run") as pid:
        for resume in (False, True):
            with pytest.raises(FolderInUse, match=f"run is in use by process {pid}"):
                quiet(tiny(steps=2), tmp_path / "run", resume=resume)
        with pytest.raises(RunInUse, match=f"another panel or kernel .process {pid}"):
            store.train("run")
        assert store.find("run").state == "under way"
    with holder(tmp_path / "sweep") as pid, pytest.raises(FolderInUse, match=f"process {pid}"):
        claimed(tmp_path / "sweep", sweep).__enter__()
    with holder(tmp_path / "new") as pid:
        assert cli.main(["train", "--steps", "1", "--out-dir", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'new'} is in use by process {pid}\n"


def test_who_was_killed_is_no_obstacle(tmp_path):
    with holder(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / locks.NAME).exists() and not locks.is_held(tmp_path / "run")
    assert quiet(tiny(steps=2), tmp_path / "run").summary["steps"] == 2


def test_a_folder_that_is_refused_is_left_without_a_trace(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        quiet(tiny(), tmp_path)
    with pytest.raises(FileExistsError), claimed(tmp_path, plan({"arms": {"a": {}}})):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(FileNotFoundError):
        quiet(tiny(dataset_dir=str(tmp_path / "nowhere")), tmp_path / "made" / "for" / "it")
    assert not (tmp_path / "made").exists()


def test_a_folder_that_is_moved_away_in_mid_run_is_not_made_again(tmp_path):
    def move(trainer):
        if trainer.step == 5:
            (tmp_path / "run").rename(tmp_path / "moved")

    with pytest.raises(FileNotFoundError, match="run was moved or deleted by somebody"):
        quiet(tiny(), tmp_path / "run", callbacks=[move])
    assert not (tmp_path / "run").exists()
    assert_same_run(quiet(tiny(), tmp_path / "moved", resume=True), quiet(tiny()))


@pytest.mark.parametrize("resume", [False, True])
def test_killed_before_the_first_checkpoint_it_begins_again(tmp_path, resume):
    runs.begin(tmp_path, tiny(), finished=False)
    left = tmp_path / ".checkpoint.safetensors.a1b2c3_4.part"
    left.write_bytes(b"half")
    assert_same_run(quiet(tiny(), tmp_path, resume=resume), quiet(tiny()))
    assert not left.exists()


def test_only_what_the_same_run_left_may_be_begun_again(tmp_path):
    runs.begin(tmp_path, tiny(), finished=False)
    with pytest.raises(FileExistsError):
        quiet(tiny(seed=1), tmp_path)
    (tmp_path / "config.json").write_text('{"somebody": "else"}')
    with pytest.raises(FileExistsError):
        quiet(tiny(), tmp_path)


def test_a_finished_run_without_its_checkpoint_is_not_thrown_away(tmp_path):
    quiet(tiny(steps=2), tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        quiet(tiny(steps=4), tmp_path, resume=True)
    assert runs.Run.load(tmp_path).summary["steps"] == 2


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    for seed in (0, 1):
        quiet(tiny(steps=2, seed=seed), tmp_path / str(seed))
    name = "checkpoint.safetensors"
    (tmp_path / "0" / name).replace(tmp_path / "1" / name)
    with pytest.raises(ValueError, match=r"is of another run than config\.json beside it"):
        quiet(tiny(steps=4, seed=1), tmp_path / "1", resume=True)


def a_word(text):
    return text.replace("train", "val", 1)


@pytest.mark.parametrize(
    "edit",
    [
        a_word,
        lambda text: text.replace(",", ",0", 3),
        lambda text: "".join(text.splitlines(keepends=True)[:1] + text.splitlines(True)[2:]),
        lambda text: text + text.splitlines()[1] + "\n",
        lambda text: text.replace("step,", "note,step,").replace("\n", "\n,"),
        lambda text: "my notes\n",
        lambda text: "\0",
    ],
)
def test_a_history_that_somebody_edited_is_not_replaced(tmp_path, edit):
    quiet(tiny(steps=6), tmp_path)
    file = tmp_path / "history.csv"
    edited = edit(file.read_text())
    file.write_text(edited)
    with pytest.raises(ValueError, match=r"history\.csv (was changed by hand|is no history)"):
        quiet(tiny(steps=12), tmp_path, resume=True)
    assert file.read_text() == edited
    file.unlink()
    assert_same_run(quiet(tiny(), tmp_path, resume=True), quiet(tiny()))


def test_one_flipped_bit_is_seen(tmp_path):
    quiet(tiny(steps=2), tmp_path)
    file = tmp_path / "checkpoint.safetensors"
    whole = file.read_bytes()
    _, info = checkpoints.read_tensors(file)
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(header, len(whole), len(whole) // 60), len(whole) - 1]
    for place in (whole.index(b"seconds") + 12, *places):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="checkpoint"):
            checkpoints.read_tensors(file)
    file.write_bytes(whole)
    assert checkpoints.read_tensors(file)[1] == info
