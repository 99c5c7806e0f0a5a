"""Several processes train one model: alike to the bit, as one would, and never hanging."""

import math
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from tests import ROOT
from tests.training import ranks
from tests.training.tiny_training import same_bits
from vqlib import Run, cli, diagnose
from vqlib.training import checkpoints, parallel

WORLDS = (2, 3)
LIMIT = 120  # seconds, on a busy machine
pytestmark = pytest.mark.xdist_group("ranks of the training")  # so that they start only once


@pytest.fixture(scope="module")
def alone():
    return {
        "trained": ranks.followed(),
        "unsound": ranks.followed(variant="counts-in-evaluation", steps=22),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def together(folder):
    """{ranks: [what each of them found]}"""
    torch.multiprocessing.spawn(ranks.work, (str(folder),), nprocs=max(WORLDS))
    return {
        n: [torch.load(folder / f"{n}-{rank}.pt", weights_only=False) for rank in range(n)]
        for n in WORLDS
    }


def assert_as_one(each: list[dict], one: dict) -> None:
    """All alike to the bit, after every step; and what one process does, but for rounding."""
    first = each[0]
    for found in each:
        assert found["states"] == first["states"]
        assert same_bits(found["trace"], first["trace"])
    for name in ("counts", "reset_events", "steps"):
        assert torch.equal(first["trace"][name], one["trace"][name]), name
    torch.testing.assert_close(first["codebook"], one["codebook"], atol=1e-5, rtol=0)
    columns = [
        "step",
        "used_codes",
        "window_tokens",
        "resets",
        "recon_loss",
        "commit_loss",
        "cosine_error",
        "eval_change",
    ]
    pd.testing.assert_frame_equal(
        first["history"][columns], one["history"][columns], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_with_uneven_parts_train_what_one_process_trains(world, together, alone):
    one = alone["trained"]
    assert len(one["trace"]["reset_events"]) > 15 and len(one["states"]) == 50
    each = [found["trained"] for found in together[world]]
    assert_as_one(each, one)
    assert [found["summary"]["ranks"] for found in each] == [world] * world


@pytest.mark.parametrize("world", WORLDS)
def test_an_evaluation_that_changes_counts_changes_them_on_all_ranks(world, together, alone):
    assert alone["unsound"]["history"]["eval_change"].max() > 0
    assert_as_one([found["unsound"] for found in together[world]], alone["unsound"])


@pytest.mark.parametrize("world", WORLDS)
def test_the_first_rank_writes_what_all_have(world, together, folder):
    run = Run.load(folder / f"trained{world}")
    first = together[world][0]["trained"]
    assert torch.equal(run.model.quantizer.codebook, first["codebook"])
    pd.testing.assert_frame_equal(run.history, first["history"])
    assert f"{world} processes with 1 thread(s) each" in str(run)


@pytest.mark.parametrize("world", WORLDS)
def test_a_diagnosis_knows_that_all_tokens_are_counted(world, together, folder):
    for source in (Run.load(folder / f"trained{world}"), folder / f"trained{world}"):
        evidence = diagnose(source)["threshold-above-share"].evidence
        assert [e.value for e in evidence if "N/K" in e.name] == [17 * 4 / 32]


def test_another_number_of_ranks_goes_on(together, alone):
    resumed = [found["resumed"] for found in together[2]]
    one, before = alone["trained"], together[3][0]["trained"]
    assert len(resumed[0]["states"]) == len(one["states"]) - ranks.STOPPED
    assert_as_one(resumed, one)
    assert before["summary"]["ranks"] == 3


@pytest.mark.parametrize("world", WORLDS)
def test_a_step_sends_three_messages(world, together):
    for found in together[world]:  # the quantizer's, the gradients', the history's
        assert found["messages"] == ["gloo:all_reduce"] * 3


@pytest.mark.parametrize("world", WORLDS)
def test_what_goes_wrong_before_the_first_step_is_told_by_all(world, together):
    first, *others = [found["refused"] for found in together[world]]
    assert all(other == first for other in others)
    assert first["taken"].startswith("FileExistsError: ") and "is not empty" in first["taken"]
    assert first["settings"].endswith("same on all ranks; rank 1 differs from rank 0")
    assert "smaller than the number of processes" in first["batch"]
    assert "'balanced' learns from the batch of one process" in first["variant"]


@pytest.mark.parametrize("world", WORLDS)
def test_all_end_together_when_one_stops_diverges_or_is_interrupted(world, together, folder):
    first, *others = [found["ended"] for found in together[world]]
    assert all(other == first for other in others)
    assert first["stopped"] == 5  # asked for after step 4
    assert first["diverged"].startswith("TrainingDiverged: ")
    assert "at step 7; the last good state, of step 4" in first["diverged"]
    assert first["interrupted"].startswith("KeyboardInterrupt: stopped after step 6 of 12; saved")
    kept = folder / str(world) / "interrupted" / "checkpoint.safetensors"
    assert checkpoints.read_info(kept)["step"] == 6


@pytest.mark.parametrize("world", WORLDS)
def test_a_loss_that_is_infinite_on_one_rank_is_seen_in_the_gradient_of_all(world, together):
    assert all(math.isnan(found["gradient"]) for found in together[world])


def test_cards_talk_by_nccl_and_cpus_by_gloo():
    assert parallel.backend(torch.device("cpu")) == "gloo"
    assert "cuda:nccl" in parallel.backend(torch.device("cuda"))


# --- processes that die ---

FLAGS = [part for name, value in ranks.LONG.items() for part in (f"--{name}", str(value))]
COMMAND = ["-m", "vqlib", "train", *FLAGS, "--no-progress", "--rank_timeout", "5", "--out_dir"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


class Pair:
    """Two processes of one training, started as torchrun does."""

    def __init__(self, out_dir, *more):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        self.checkpoint = out_dir / "checkpoint.safetensors"
        self.processes = [
            subprocess.Popen(
                [sys.executable, *COMMAND, str(out_dir), *more],
                cwd=ROOT,
                env=ENVIRONMENT | address | {"RANK": str(rank), "WORLD_SIZE": "2"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(2)
        ]

    def step(self) -> int:
        """Of the checkpoint; -1: there is none yet."""
        return checkpoints.read_info(self.checkpoint)["step"] if self.checkpoint.exists() else -1

    def wait_for(self, step: int) -> None:
        end = time.monotonic() + LIMIT
        while self.step() < step:
            assert time.monotonic() < end and self.processes[0].poll() is None
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.mark.usefixtures("together")
def test_a_rank_that_is_killed_costs_the_steps_since_the_checkpoint(folder):
    cut, last = folder / "cut", ranks.LONG["steps"]
    with Pair(cut) as pair:
        pair.wait_for(20)
        time.sleep(random.uniform(0, 0.3))
        pair.processes[1].send_signal(signal.SIGKILL)
        said, _ = pair.processes[0].communicate(timeout=LIMIT)
        assert pair.processes[0].returncode == 2
        assert "error: rank 0 of 2 lost contact with another one, which died" in said
        assert "Traceback" not in said and "--resume" in said
        assert 20 <= pair.step() < last

    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, *COMMAND, cut, "--resume"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(f"{last} steps on digits") == 1 and str(cut) in done.stdout
    one, two = Run.load(folder / "never cut"), Run.load(cut)
    assert same_bits(one.model.state_dict(), two.model.state_dict())
    pd.testing.assert_frame_equal(one.history, two.history, check_exact=True)


def test_a_rank_that_hangs_is_told_after_the_timeout(together):
    said = together[2][0]["hung"]
    assert said.startswith("RankLost: rank 0 of 2 lost contact with another one")
    assert "Timed out waiting 2000ms" in said


def test_ranks_that_never_come_are_told(tmp_path, monkeypatch, capsys):
    lonely = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "RANK": "1", "WORLD_SIZE": "2"}
    for name, value in lonely.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["train", "--rank_timeout", "1", "--out_dir", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert said == "error: rank 1 of 2 did not meet the others at 127.0.0.1 within 1 s\n"
    assert not (tmp_path / "new").exists()
