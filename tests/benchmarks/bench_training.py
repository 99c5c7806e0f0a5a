"""What a training step costs beside the same autoencoder without a quantizer.

Three trainings take turns in one process, on the same pictures: the suite's, with its history; the
suite's without its quantizer's work, which is replaced by the identity; and that one again. What
counts is the median over blocks of steps. Run it with `make bench`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time

import torch
from torch import nn

from tests.benchmarks.goals import within
from vqlib import TrainConfig
from vqlib.quantization.quantizer import Quantized
from vqlib.training.trainer import Trainer

GOAL = 1 / 0.95  # a step with quantizer and history over one without
BLOCK = 20


class Identity(nn.Module):
    """Quantizes nothing."""

    def forward(self, z):
        return Quantized(z, torch.zeros(z.shape[:-1], dtype=torch.int64), z.new_zeros(()))


class Plain:
    """The loop that anybody writes: the trainer's model, pictures and optimizer, no history."""

    def __init__(self, config: TrainConfig):
        self.trainer = Trainer(config)
        self.trainer.model.quantizer = Identity()

    def _train_step(self) -> bool:
        t = self.trainer
        rows, following = t._batch_of(t.step), t._batch_of(t.step + 1)
        pictures = t._to_device(t.batches.take(rows, following))
        t.optimizer.zero_grad()
        t.model(pictures).recon_loss.backward()
        t.optimizer.step()
        t.step += 1
        return True


def seconds(loop, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        assert loop._train_step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=12)
    options = parser.parse_args()
    config = TrainConfig(steps=10**6, dead_code_threshold=1.0)
    loops = [Plain(config), Trainer(config), Plain(config)]
    orders = itertools.cycle(itertools.permutations(range(3)))
    times = torch.zeros(options.blocks + 1, 3, dtype=torch.double)
    for row in times:
        for i in next(orders):
            row[i] = seconds(loops[i], BLOCK)
    first, whole, second = times[1:].unbind(1)
    plain = (first + second) / 2
    ratio = float((whole / plain).median())
    noise, step = float((second / first).median()), 1000 * float(plain.median()) / BLOCK
    print(
        f"load {os.getloadavg()[0]:.1f}; a plain step {step:.1f} ms;"
        f" with quantizer and history {within(ratio, GOAL, 'training step over a plain one')} times"
        f" that (at most {GOAL:.3f}); noise {noise:.3f}"
    )


if __name__ == "__main__":
    main()
