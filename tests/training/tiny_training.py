"""What the tests of training share: settings for runs of a second, and equality to the bit."""

import pandas as pd
import torch

from vqlib import Run, TrainConfig, train

torch.set_num_threads(1)  # at these sizes more threads only get in each other's way

TINY = {
    "dataset": "digits",
    "codebook_size": 32,
    "dim": 8,
    "width": 8,
    "batch_size": 16,
    "steps": 12,
    "warmup_steps": 4,
    "val_every": 6,
    "checkpoint_every": 4,
    "dead_code_threshold": 0.5,
    "threads": 1,
    "device": "cpu",
}


def tiny(**changes) -> TrainConfig:
    return TrainConfig(**(TINY | changes))


def same_bits(left: dict, right: dict) -> bool:
    """Whether two dicts hold the same tensors under the same names, to the last bit."""
    return left.keys() == right.keys() and all(
        a.dtype == right[name].dtype and torch.equal(a.cpu(), right[name].cpu())
        for name, a in left.items()
    )


def copies(state: dict) -> dict:
    return {name: tensor.clone() for name, tensor in state.items()}


def quiet(config, out_dir=None, **more) -> Run:
    return train(config, out_dir, progress=False, **more)


def assert_same_run(one: Run, two: Run) -> None:
    """To the last bit: history, weights, codebook, generator and traces."""
    pd.testing.assert_frame_equal(one.history, two.history, check_exact=True)
    assert same_bits(one.model.state_dict(), two.model.state_dict())
    assert same_bits(one.trace, two.trace)
