"""vqlib.training: the same bits every time, however it is stopped and resumed."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from tests.training.tiny_training import assert_same_run, copies, quiet, same_bits, tiny
from vqlib import Run, TrainingDiverged, train
from vqlib.quantization import usage
from vqlib.training import checkpoints, data, history, locks
from vqlib.training.history import COLUMNS
from vqlib.training.model import tokenize
from vqlib.training.trainer import Trainer

VAL_PICTURES, TOKENS_A_PICTURE = 180, 4  # of digits


def interrupt_at(step):
    def callback(trainer):
        if trainer.step == step:
            signal.raise_signal(signal.SIGINT)

    return callback


def folder_bytes(folder) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != locks.NAME}


# --- the same bits ---


def test_one_seed_gives_one_run_whatever_else_the_process_has_drawn():
    config = tiny(trace_every=2, dead_code_threshold=1.0)
    torch.manual_seed(1)
    one = quiet(config)
    torch.manual_seed(2), np.random.seed(2)
    assert_same_run(one, train(config, progress=True))
    assert one.summary["total_resets"] > 0


def test_another_seed_gives_another_run():
    one, other = quiet(tiny(steps=2)), quiet(tiny(steps=2, seed=1))
    assert not any(
        torch.equal(a, b)
        for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True)
    )


def test_a_run_leaves_the_process_as_it_was():
    handler, threads, state = signal.getsignal(signal.SIGINT), torch.get_num_threads(), None
    torch.manual_seed(0)
    state = torch.get_rng_state()
    quiet(tiny(steps=1, threads=threads + 1))
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_looking_changes_nothing():
    often = quiet(tiny(val_every=1, trace_every=1, log_every=1))
    seldom = quiet(tiny(val_every=1000, trace_every=0, log_every=7))
    assert same_bits(often.model.state_dict(), seldom.model.state_dict())
    shared = ["step", "used_codes", "recon_loss", "cosine_error", "lr", "encoder_similarity"]
    left, right = (run.split("train").set_index("step")[shared[1:]] for run in (often, seldom))
    pd.testing.assert_frame_equal(left.loc[[7]], right, check_exact=True)


# --- what a run holds ---


def test_the_history_has_its_rows_and_columns():
    run = quiet(tiny(log_every=3, val_every=5))
    assert list(run.history.columns) == list(COLUMNS)
    assert run.split("train")["step"].tolist() == [3, 6, 9, 12]
    assert run.split("val")["step"].tolist() == [5, 10, 12]  # and always one at the end


def test_validation_counts_the_whole_validation_set():
    run = quiet(tiny())
    pictures = data.load("digits").val.batch(range(VAL_PICTURES))
    row = run.split("val").iloc[-1]
    with torch.no_grad():
        output = run.model(pictures)
    counts = torch.bincount(tokenize(run.model, pictures).flatten(), minlength=32)
    assert row["window_tokens"] == VAL_PICTURES * TOKENS_A_PICTURE == counts.sum()
    assert torch.equal(run.trace["val_counts"][-1], counts)
    for name, value in usage.summarize(counts).items():
        assert row[name] == value
    assert row["recon_loss"] == pytest.approx(float(F.mse_loss(output.reconstruction, pictures)))
    assert row["commit_loss"] == pytest.approx(output.commit_loss.item(), rel=1e-4)
    similarity = usage.pairwise_similarity(output.encoded)
    assert row["encoder_similarity"] == pytest.approx(similarity, rel=1e-5)


def test_each_validation_picture_counts_the_same_whatever_the_batches(monkeypatch):
    one = quiet(tiny(steps=3)).split("val")
    monkeypatch.setattr(history, "VAL_BATCH", 7)
    two = quiet(tiny(steps=3)).split("val")
    pd.testing.assert_frame_equal(one, two, rtol=1e-5, atol=1e-6)


def test_resets_add_up_over_rows_summary_and_trace():
    run = quiet(tiny(steps=20, log_every=4, trace_every=6, dead_code_threshold=1.0))
    events = run.trace["reset_events"]
    assert run.split("train")["resets"].sum() == run.summary["total_resets"] == len(events) > 0
    assert events[:, 0].min() >= 1 and events[:, 0].max() <= 20
    assert events[:, 1].max() < 32 and events[:, 2].max() < 16 * TOKENS_A_PICTURE


def test_traces_have_their_documented_shapes():
    run = quiet(tiny(trace_every=5))
    shapes = {name: tuple(tensor.shape) for name, tensor in run.trace.items()}
    resets = shapes.pop("reset_events", (0, 3))
    assert resets[1] == 3
    assert shapes == {
        "steps": (2,),
        "counts": (2, 32),
        "cluster_size": (2, 32),
        "val_steps": (2,),
        "val_counts": (2, 32),
        "codebook": (2, 32, 8),
        "probe": (2, 4 * TOKENS_A_PICTURE, 8),
    }
    assert run.trace["steps"].tolist() == [5, 10] and run.trace["val_steps"].tolist() == [6, 12]
    assert (run.trace["counts"].sum(dim=1) == 16 * TOKENS_A_PICTURE).all()
    assert torch.equal(run.trace["codebook"][-1], run.model.quantizer.codebook)
    assert set(quiet(tiny(steps=1)).trace) == {"val_steps", "val_counts"}


def test_the_summary_tells_the_last_rows():
    run = quiet(tiny())
    for split in ("train", "val"):
        last = run.split(split).iloc[-1]
        for name in ("utilization", "perplexity", "top_code_ratio", "recon_loss"):
            assert run.summary[f"{split}_{name}"] == last[name]
    assert (run.summary["steps"], run.summary["tokens_per_step"]) == (12, 64)
    assert run.summary["uniform_share"] == 2 and run.summary["val_pictures"] == VAL_PICTURES


def test_the_optimizer_steps_at_the_rate_of_the_config():
    config = tiny(warmup_steps=6, cooldown_steps=3)
    seen = []
    run = quiet(config, callbacks=[lambda t: seen.append(t.optimizer.param_groups[0]["lr"])])
    assert seen == [config.rate(step, 12) for step in range(12)]
    assert run.split("train")["lr"].tolist() == seen


def test_each_epoch_shows_every_picture_once_in_another_order():
    trainer = Trainer(tiny(batch_size=32))
    epochs = []
    for epoch in range(2):
        batches = []
        for position in range(trainer.per_epoch):
            trainer.step = epoch * trainer.per_epoch + position
            batches.append(trainer._batch_of(trainer.step))
        epochs.append(torch.cat(batches))
    for order in epochs:
        assert len(order) == len(order.unique()) == 1617 // 32 * 32
    assert not torch.equal(*epochs)
    Trainer(tiny(seed=2**62))._batch_of(0)  # the largest seed allowed


def test_a_frozen_encoder_stays_and_the_decoder_learns():
    def weights(run, part):
        return list(getattr(run.model, part).parameters())

    start, half, frozen = (
        quiet(tiny(steps=steps, freeze_encoder_at=at, weight_decay=0.5, learning_rate=0.01))
        for steps, at in ((1, 0), (6, 6), (12, 6))
    )
    untouched = Trainer(tiny()).model.encoder.parameters()
    same = [torch.equal(a, b) for a, b in zip(weights(start, "encoder"), untouched, strict=True)]
    assert all(same)
    for part, stays in (("encoder", True), ("decoder", False)):
        pairs = zip(weights(half, part), weights(frozen, part), strict=True)
        assert all(torch.equal(a, b) is stays for a, b in pairs)
    assert not torch.equal(weights(half, "encoder")[0], weights(start, "encoder")[0])


def test_training_lowers_the_loss():
    run = quiet(tiny(steps=60, learning_rate=3e-3))
    losses = run.split("train")["recon_loss"]
    assert losses.tail(5).mean() < 0.8 * losses.head(5).mean()


def test_training_works_off_the_main_thread():
    done = []
    thread = threading.Thread(target=lambda: done.append(quiet(tiny(steps=1))))
    thread.start(), thread.join()
    assert done[0].summary["steps"] == 1


# --- what is refused before anything is written ---


@pytest.fixture
def arrays(tmp_path):
    """A folder's path with a picture array in it, and a function that writes another."""
    path = tmp_path / "pictures.npy"

    def write(seed=0, shape=(60, 8, 8)):
        np.save(path, np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8))
        return str(path)

    write()
    return write


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, (60, 10, 8), r"are \(10, 8\) pixels; height and width must be multiples of 4"),
        ({"batch_size": 55}, (60, 8, 8), "batch_size 55 is larger than the training set of 54"),
        ({"dataset_dir": "nowhere"}, (60, 8, 8), "dataset_dir 'nowhere' does not exist"),
    ],
)
def test_unusable_data_is_refused_and_leaves_no_folder(arrays, tmp_path, changes, shape, message):
    config = tiny(**({"dataset_dir": arrays(shape=shape)} | changes))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        quiet(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_run_is_not_overwritten(tmp_path):
    quiet(tiny(steps=1), tmp_path / "out")
    before = folder_bytes(tmp_path / "out")
    with pytest.raises(FileExistsError):
        quiet(tiny(steps=1, seed=1), tmp_path / "out")
    assert folder_bytes(tmp_path / "out") == before


# --- stopping and going on ---


def test_a_run_writes_its_files_and_reads_back(tmp_path):
    run = quiet(tiny(trace_every=4), tmp_path)
    assert sorted(folder_bytes(tmp_path)) == [
        "checkpoint.safetensors",
        "config.json",
        "history.csv",
        "run.safetensors",
        "summary.json",
    ]
    assert_same_run(Run.load(tmp_path), run)


@pytest.mark.parametrize(
    ("stop", "changes"),
    [
        (1, {}),
        (7, {"trace_every": 3, "usage_window": 4, "log_every": 3, "dead_code_threshold": 2.0}),
        (8, {"freeze_encoder_at": 5, "kmeans_init": False, "cooldown_steps": 4}),
        (
            11,
            {
                "reset_donors": "usage",
                "reset_relative": True,
                "reset_interval": 2,
                "batch_size": 200,
            },
        ),
        (5, {"dead_code_threshold": 0.0, "momentum": 0.5, "weight_decay": 0.1}),
    ],
    ids=["plain", "windows", "frozen", "epochs", "no reset"],
)
def test_after_ctrl_c_a_run_goes_on_as_if_never_stopped(tmp_path, changes, stop):
    config = tiny(**changes)
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {stop} of 12; saved in") as e:
        quiet(config, tmp_path, callbacks=[interrupt_at(stop)])
    assert f"--out_dir {tmp_path} --resume" in str(e.value)
    assert not (tmp_path / "summary.json").exists()
    assert checkpoints.read_tensors(tmp_path / "checkpoint.safetensors")[1]["step"] == stop
    resumed = quiet(config, tmp_path, resume=True)
    assert_same_run(resumed, quiet(config))
    assert_same_run(Run.load(tmp_path), resumed)


def test_ctrl_c_without_a_folder_says_that_nothing_was_saved():
    with pytest.raises(KeyboardInterrupt, match="stopped after step 2; nothing was saved"):
        quiet(tiny(), callbacks=[interrupt_at(2)])


def test_ctrl_c_at_the_last_step_finishes_the_run_and_is_told(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="interrupted after step 12 of 12"):
        quiet(tiny(), tmp_path, callbacks=[interrupt_at(12)])
    assert Run.load(tmp_path).summary["steps"] == 12


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def twice(trainer):
        if trainer.step == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        quiet(tiny(), tmp_path, callbacks=[twice])
    assert checkpoints.read_tensors(tmp_path / "checkpoint.safetensors")[1]["step"] == 4


def flags(config) -> list[str]:
    """The command line of a config: every setting that is not the default."""
    default = type(config)().to_dict()
    changed = {n: v for n, v in config.to_dict().items() if v != default[n]}
    return [part for name, value in changed.items() for part in (f"--{name}", str(value))]


def test_a_killed_run_goes_on_as_if_never_stopped(tmp_path):
    config = tiny(
        steps=400,
        checkpoint_every=7,
        trace_every=9,
        usage_window=3,
        log_every=2,
        val_every=40,
        dead_code_threshold=1.0,
    )
    out, file = tmp_path / "out", tmp_path / "out" / "checkpoint.safetensors"
    command = [sys.executable, "-m", "vqlib", "train", *flags(config), "--out_dir", str(out)]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        # its head alone: the tensors are found by name, and another file may have it by then
        while not (file.exists() and checkpoints.read_info(file)["step"] >= 28):
            assert child.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    assert 28 <= checkpoints.read_tensors(file)[1]["step"] < 400
    resumed = quiet(config, out, resume=True)
    whole = quiet(config, tmp_path / "whole")
    assert whole.summary["total_resets"] > 0
    assert_same_run(resumed, whole)
    same = folder_bytes(tmp_path / "whole")
    for name in ("history.csv", "config.json", "run.safetensors"):
        assert (out / name).read_bytes() == same[name]
    ledgers = [
        checkpoints.unflatten(checkpoints.read_tensors(path / file.name)[0], "recorder")
        for path in (out, tmp_path / "whole")
    ]
    for ledger in ledgers:  # a set of pairs: their order says nothing
        ledger["cohorts"] = torch.tensor(sorted(ledger["cohorts"].tolist()))
        ledger["rows"] = ledger["rows"].nan_to_num()
        ledger["drift"] = ledger["drift"].nan_to_num()
    assert same_bits(*ledgers)


def test_a_finished_run_resumes_to_itself(tmp_path):
    run = quiet(tiny(), tmp_path)
    before = folder_bytes(tmp_path)
    assert_same_run(quiet(tiny(), tmp_path, resume=True), run)
    after = folder_bytes(tmp_path)
    assert after["history.csv"] == before["history.csv"]
    assert after["run.safetensors"] == before["run.safetensors"]


def test_more_steps_make_it_the_longer_run(tmp_path):
    quiet(tiny(steps=6), tmp_path)
    longer = quiet(tiny(steps=12), tmp_path, resume=True)
    assert_same_run(longer, quiet(tiny(steps=12)))
    assert Run.load(tmp_path).config.steps == 12


def test_fewer_steps_than_done_are_refused(tmp_path):
    quiet(tiny(steps=6), tmp_path)
    with pytest.raises(ValueError, match="of step 6, past the last one asked for, 3"):
        quiet(tiny(steps=3), tmp_path, resume=True)
    assert Run.load(tmp_path).config.steps == 6


def test_changed_settings_are_refused_by_name(tmp_path):
    quiet(tiny(steps=2), tmp_path)
    before = folder_bytes(tmp_path)
    with pytest.raises(ValueError, match=r"changed: decay was 0\.9, is 0\.5"):
        quiet(tiny(steps=4, decay=0.5), tmp_path, resume=True)
    assert folder_bytes(tmp_path) == before


def test_changed_data_are_refused(arrays, tmp_path):
    config = tiny(dataset_dir=arrays(seed=0), steps=2)
    quiet(config, tmp_path / "out")
    arrays(seed=1)
    with pytest.raises(ValueError, match=r"the data of .*pictures\.npy has changed since"):
        quiet(config, tmp_path / "out", resume=True)


def test_a_damaged_checkpoint_is_named(tmp_path):
    quiet(tiny(steps=2), tmp_path)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match=file.name):
        quiet(tiny(steps=2), tmp_path, resume=True)


# --- divergence ---


def poison(part, step):
    """After ``step``, one weight of the part is not a number."""

    def callback(trainer):
        if trainer.step == step:
            next(getattr(trainer.model, part).parameters()).data[0, 0, 0, 0] = float("nan")

    return callback


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_what_was_last_good_is_kept_in_memory_and_on_disk(tmp_path, part):
    config, kept = tiny(checkpoint_every=4, trace_every=1), {}

    def note(trainer):
        if trainer.step == 5:  # the checkpoint of step 4 is written
            kept["file"] = (tmp_path / "checkpoint.safetensors").read_bytes()

    with pytest.raises(TrainingDiverged) as caught:
        quiet(config, tmp_path, callbacks=[note, poison(part, 6)])
    message = str(caught.value)
    assert "not finite at step 7; the last good state, of step 4, is kept in" in message
    assert "learning_rate (now 0.001)" in message and str(tmp_path) in message
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == kept["file"]
    good = quiet(tiny(steps=4, trace_every=1))
    run = caught.value.run
    assert same_bits(run.model.state_dict(), good.model.state_dict())
    assert run.summary["steps"] == 4 and run.history["step"].max() == 6
    assert not (tmp_path / "summary.json").exists()
    assert_same_run(quiet(config, tmp_path, resume=True), quiet(config))


def test_too_high_a_rate_stops_the_run_without_a_folder():
    with pytest.raises(TrainingDiverged, match=r"is kept in the error's \.run\. Lower") as caught:
        quiet(tiny(learning_rate=1000.0, warmup_steps=0))
    assert all(weight.isfinite().all() for weight in caught.value.run.model.parameters())


def test_a_run_that_explodes_at_its_very_last_step_is_not_called_finished(tmp_path):
    exploding = {"learning_rate": 1e3, "weight_decay": 1e6, "warmup_steps": 0}
    with pytest.raises(TrainingDiverged):
        quiet(tiny(steps=1, **exploding), tmp_path)
    assert not (tmp_path / "summary.json").exists()
    tensors, info = checkpoints.read_tensors(tmp_path / "checkpoint.safetensors")
    assert info["step"] == 0
    assert all(t.isfinite().all() for n, t in tensors.items() if n.startswith("model/"))


def test_a_divergence_comes_whole_out_of_a_worker_process():
    with pytest.raises(TrainingDiverged) as caught:
        quiet(tiny(learning_rate=1000.0, warmup_steps=0))
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert same_bits(again.run.model.state_dict(), copies(caught.value.run.model.state_dict()))
