"""How much longer a training step takes while a watch follows it.

Four twins of one model train in turn in one process, on the same batches: one plain, one
watched, one watched with ``on_row`` and alarms, one plain again. Much of a watch's work comes
now and then: rows are fetched together, gradients are looked at every hundred steps, alarms
diagnose every five hundred. So a block of five hundred steps is summed, and what counts is the
median over blocks of watched / plain; that of plain / plain says how far the machine's noise
reaches. Then the time of one diagnosis, early and late in a run. Run it with `make bench`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import statistics
import time
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from vector_quantize_pytorch import VectorQuantize

import vqlib
from tests.benchmarks.goals import within
from vqlib.training.model import VQVAE

GOAL = 1.02  # a step with everything on over a plain one, for the suite's model
BLOCK = 500  # steps: each holds one diagnosis by alarms. The first block does not count


class Autoencoder(nn.Module):
    """A small convolutional autoencoder around vector-quantize-pytorch's layer."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
        )
        self.quantizer = VectorQuantize(
            dim=32,
            codebook_size=512,
            accept_image_fmap=True,
            kmeans_init=True,
            threshold_ema_dead_code=2,
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1)
        )

    def forward(self, pictures):
        quantized, _, loss = self.quantizer(self.encoder(pictures))
        return F.mse_loss(self.decoder(quantized), pictures) + loss.sum()


class Ours(nn.Module):
    """The suite's own model, as its notebooks train it."""

    def __init__(self):
        super().__init__()
        reset = vqlib.DeadCodeReset(threshold=1.0)
        self.model = VQVAE(vqlib.NormEMAQuantizer(512, 64, reset=reset))

    def forward(self, pictures):
        output = self.model(pictures)
        return output.recon_loss + output.commit_loss


def seconds_of_a_step(model: nn.Module, optimizer, pictures) -> float:
    start = time.perf_counter()
    optimizer.zero_grad()
    model(pictures).backward()
    optimizer.step()
    if pictures.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Cost(NamedTuple):
    """Seconds of a plain step, and median ratios to it."""

    step: float
    watched: float
    alarmed: float  #: with ``on_row`` and alarms
    noise: float  #: of plain to plain


def compare(build, device: torch.device, blocks: int) -> Cost:
    """What a step costs, watched, and with ``on_row`` and alarms."""
    torch.manual_seed(0)
    plain = build().to(device)
    models = [plain, *(copy.deepcopy(plain) for _ in range(3))]
    runs = [(m, torch.optim.AdamW(m.parameters(), lr=1e-3)) for m in models]
    orders = itertools.cycle(itertools.permutations(range(4)))
    seconds = torch.zeros(blocks + 1, 4, dtype=torch.double)
    with vqlib.watch(models[1]), vqlib.watch(models[2], on_row=json.dumps) as w:
        vqlib.Alarms(w, str)
        for step in range((blocks + 1) * BLOCK):
            pictures = torch.rand(32, 3, 56, 56).to(device)
            for i in next(orders):
                seconds[step // BLOCK, i] += seconds_of_a_step(*runs[i], pictures)
    first, watched, alarmed, second = seconds[1:].unbind(1)
    both = (first + second) / 2
    return Cost(
        *(float(x.median()) for x in (both / BLOCK, watched / both, alarmed / both, second / first))
    )


def diagnosis_seconds(rows: int) -> tuple[float, float]:
    """Median seconds of a diagnosis by alarms, and by `vqlib.diagnose`, after ``rows`` rows."""
    layer = vqlib.NormEMAQuantizer(512, 8, reset=vqlib.DeadCodeReset(threshold=1.0))
    with vqlib.watch(layer) as w:
        alarms = vqlib.Alarms(w, str, every=rows + 1)
        for z in torch.randn(50, 600, 8):
            layer(z)
        w.catch_up()
        (track,) = w._tracks
        some = list(track.rows)
        for step in range(len(some) + 1, rows + 1):  # more of the same
            track.rows.append(some[step % len(some)] | {"step": step})
        w.catch_up()
    return _median_seconds(vqlib.diagnose, alarms), _median_seconds(vqlib.diagnose, w)


def _median_seconds(call, argument) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call(argument)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, default=3)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}; ratios to a plain step")
    print("model                 ms a step   watched   + on_row, alarms   noise")
    for name, build in (("vqlib VQVAE", Ours), ("VectorQuantize", Autoencoder)):
        cost = compare(build, torch.device(options.device), options.blocks)
        if build is Ours:
            within(cost.alarmed, GOAL, "a watched step over a plain one, everything on")
        print(
            f"{name:20}{1000 * cost.step:11.1f}{cost.watched:10.3f}{cost.alarmed:19.3f}"
            f"{cost.noise:8.3f}",
            flush=True,
        )
    print("rows      ms a diagnosis: by alarms   by vqlib.diagnose(watch)")
    for rows in (100, 1000, 10_000, 100_000):
        alarms, whole = diagnosis_seconds(rows)
        print(f"{rows:<10}{1000 * alarms:26.1f}{1000 * whole:27.1f}")


if __name__ == "__main__":
    main()
