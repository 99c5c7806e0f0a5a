"""How much longer a training step takes with its pictures loaded from a folder.

Twins of one training run in turn in one process, on the same crops: from a tensor in memory;
from the folder, whose crops were kept when they were first decoded; from the folder with every
picture decoded anew; and from the tensor again. What counts is the median over blocks of steps of
loading / tensor; that of tensor / tensor says how far the machine's noise reaches. The first
epoch, which decodes, is timed apart, beside its steps on the tensor. Run it with `make bench`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage
import torch
from PIL import Image

from tests.benchmarks.goals import versions, within
from vqlib import TrainConfig
from vqlib.training import data
from vqlib.training.ahead import Ahead
from vqlib.training.folders import FolderPictures
from vqlib.training.trainer import Trainer

SOURCES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
LARGE = (4000, 3000)  # 12 megapixels
SMALL = (96, 96)
GOAL = 1.05  # a step on kept crops over a step on tensors
BLOCK = 5  # steps timed together. The first block does not count
SLOW_BLOCKS = 3  # of those in which every picture is decoded


def photographs(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """``count`` JPEGs of ``size``: squares of scikit-image's photographs, enlarged or reduced."""
    folder.mkdir()
    shipped = Path(skimage.__file__).parent / "data"
    sources = [Image.open(shipped / name).convert("RGB") for name in SOURCES]
    rng = np.random.default_rng(0)
    for n in range(count):
        source = sources[n % len(sources)]
        side = int(rng.integers(96, 300))
        left, top = (int(rng.integers(length - side + 1)) for length in source.size)
        part = source.resize(size, Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        part.save(folder / f"{n:05}.jpg", quality=90)
    return folder


class Tensors:
    """Batches of a tensor that holds all pictures."""

    def __init__(self, pictures):
        self.pictures = pictures.batch(range(len(pictures)))

    def take(self, indices, following=None):
        return self.pictures[indices]


def trainer_of(config: TrainConfig, batches=None) -> Trainer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few steps an epoch, which is meant
        trainer = Trainer(config)
    trainer.batches = batches or trainer.batches
    return trainer


def decoded_anew(folder: FolderPictures) -> FolderPictures:
    return FolderPictures(folder.root, folder.names, folder.image_size, folder.crops, folder.seed)


def seconds_of(trainer: Trainer, steps: int) -> float:
    """Of so many steps, what each began in the background included."""
    start = time.perf_counter()
    for _ in range(steps):
        assert trainer._train_step()
    if getattr(trainer.batches, "_begun", None):
        trainer.batches._begun[1].result()
    return time.perf_counter() - start


class Cost(NamedTuple):
    """Seconds of a step on a tensor, and medians of ratios to it."""

    step: float
    kept: float
    decoded: float
    noise: float  #: of tensor to tensor


def compare(config: TrainConfig, blocks: int) -> Cost:
    pictures = data.of(*config.source)
    tensors = Tensors(pictures.train)
    trainers = [
        trainer_of(config, tensors),
        trainer_of(config),
        trainer_of(config, Ahead(decoded_anew(pictures.train))),
        trainer_of(config, tensors),
    ]
    seconds = torch.full((blocks + 1, 4), torch.nan, dtype=torch.double)
    orders = itertools.cycle(itertools.permutations(range(4)))
    for number, block in enumerate(seconds):
        for i in next(orders):
            if i != 2 or number <= SLOW_BLOCKS:
                block[i] = seconds_of(trainers[i], BLOCK)
    first, kept, decoded, second = seconds[1:].unbind(1)
    both = (first + second) / 2
    ratios = both / BLOCK, kept / both, decoded / both, second / first
    return Cost(*(float(x.nanmedian()) for x in ratios))


class FirstEpoch(NamedTuple):
    """Seconds of an epoch from an empty cache, and of its steps on a tensor."""

    decoding: float
    tensors: float
    steps: int


def first_epoch(config: TrainConfig) -> FirstEpoch:
    start = time.perf_counter()
    trainer = trainer_of(config)
    opened = time.perf_counter() - start
    seconds = opened + seconds_of(trainer, trainer.per_epoch)
    twin = trainer_of(config, Tensors(trainer.data.train))
    return FirstEpoch(seconds, seconds_of(twin, trainer.per_epoch), trainer.per_epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--small", type=int, default=10_000, help="number of small pictures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["VQLIB_CACHE"] = str(Path(scratch, "cache"))
        large = photographs(Path(scratch, "large"), 50, LARGE)
        small = photographs(Path(scratch, "small"), options.small, SMALL)
        print(versions("torch", "numpy", "pillow"))
        print(f"load {os.getloadavg()[0]:.1f}; ratios to a step on tensors; goal: at most {GOAL}")
        print("                                           kept   decoded         first epoch, s")
        print("                          ms a step       crops      anew   noise   (on tensors)")
        for name, folder, crops in (
            ("50 of 12 megapixels", large, 1),
            ("the same, 16 crops", large, 16),
            (f"{options.small:,} of {SMALL[0]} x {SMALL[1]}", small, 1),
        ):
            config = TrainConfig(
                dataset_dir=str(folder), crops=crops, steps=10**6, device=options.device
            )
            epoch = first_epoch(config)
            cost = compare(config, options.blocks)
            kept = within(cost.kept, GOAL, f"a step on a folder over one on tensors: {name}")
            print(
                f"{name:24}{1000 * cost.step:11.1f}{kept:>12}{cost.decoded:10.3f}{cost.noise:8.3f}"
                f"{epoch.decoding:9.1f} ({epoch.tensors:.1f}, {epoch.steps} steps)"
            )
        print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
