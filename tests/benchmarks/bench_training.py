"""What a training step costs beside the same autoencoder without a quantizer.

Four trainings take turns in one process, on the same pictures: the suite's, with its history; the
suite's without its quantizer's work, which is replaced by the identity; that one again; and one
that only multiplies the tokens by the codes, which every exact search in float32 must do at this
size. What counts is the median over blocks of steps. Run it with `make bench`.
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


class Product(Identity):
    """Quantizes nothing, but computes the similarities of all tokens and codes."""

    def __init__(self, config: TrainConfig):
        super().__init__()
        self.codebook = torch.randn(config.codebook_size, config.dim)

    def forward(self, z):
        flat = z.detach().reshape(-1, z.shape[-1])
        torch.mm(flat, self.codebook.T)
        return super().forward(z)


class Plain:
    """The loop that anybody writes: the trainer's model, pictures and optimizer, no history."""

    def __init__(self, config: TrainConfig, quantizer: nn.Module):
        self.trainer = Trainer(config)
        self.trainer.model.quantizer = quantizer

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
    loops = [
        Plain(config, Identity()),
        Trainer(config),
        Plain(config, Identity()),
        Plain(config, Product(config)),
    ]
    orders = itertools.cycle(itertools.permutations(range(4)))
    times = torch.zeros(options.blocks + 1, 4, dtype=torch.double)
    for row in times:
        for i in next(orders):
            row[i] = seconds(loops[i], BLOCK)
    first, whole, second, product = times[1:].unbind(1)
    plain = (first + second) / 2
    ratio = float((whole / plain).median())
    noise, step = float((second / first).median()), 1000 * float(plain.median()) / BLOCK
    print(
        f"load {os.getloadavg()[0]:.1f}; a plain step {step:.1f} ms;"
        f" with quantizer and history {within(ratio, GOAL, 'training step over a plain one')} times"
        f" that (at most {GOAL:.3f}); with the product of tokens and codes alone"
        f" {float((product / plain).median()):.3f} times; noise {noise:.3f}"
    )


if __name__ == "__main__":
    main()
