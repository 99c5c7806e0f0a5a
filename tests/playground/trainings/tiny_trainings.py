"""What the tests of the trainings share: a panel with trainings of a second, and its browser."""

import time

import pandas as pd
import pytest
import torch

from vqlib import Run, TrainConfig, playground
from vqlib.playground.trainings import worker

TINY = TrainConfig(
    dataset="digits",
    codebook_size=32,
    dim=8,
    width=8,
    batch_size=16,
    steps=12,
    warmup_steps=4,
    val_every=6,
    checkpoint_every=4,
    dead_code_threshold=0.5,
    threads=1,
    device="cpu",
)


@pytest.fixture
def trainings(tmp_path):
    made = playground.Trainings(tmp_path / "runs", TINY)
    yield made
    if worker.Worker.current is not None:
        worker.Worker.current.stop()
        worker.Worker.current.join(20)


@pytest.fixture
def long(trainings):
    """A training under way that would go on for long."""
    trainings.set(steps=3000)
    trainings.train("long")
    until(lambda: trainings.board.picture.live)
    return trainings


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.005)


def states(trainings):
    return dict(zip(trainings.table()["name"], trainings.table()["state"], strict=True))


def said(trainings):
    return trainings.board._message.value


def browser(trainings, do, run, **more):
    """What the page sends where somebody clicks in the table."""
    trainings.board.picture._handle_custom_msg({"do": do, "run": run, **more}, [])


def assert_same(one: Run, two: Run):
    pd.testing.assert_frame_equal(one.history, two.history, check_exact=True)
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, two.model.state_dict()[name])
