"""How much longer a training step takes while a watch follows it.

Three twins of one model train in turn in one process, on the same batches: one plain, one
watched, one plain again. What counts is the median over rounds of watched / plain; that of
plain / plain says how far the machine's noise reaches. Run it with `make bench`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F
from vector_quantize_pytorch import VectorQuantize

import vqlib
from vqlib.training.model import VQVAE

WARM_UP = 5  # rounds that do not count


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


def compare(build, device: torch.device, rounds: int) -> tuple[float, float, float]:
    """(median seconds of a plain step, median watched / plain, median plain / plain)."""
    torch.manual_seed(0)
    plain = build().to(device)
    models = [plain, copy.deepcopy(plain), copy.deepcopy(plain)]
    runs = [(m, torch.optim.AdamW(m.parameters(), lr=1e-3)) for m in models]
    orders = itertools.cycle(itertools.permutations(range(3)))
    seconds: list[list[float]] = [[], [], []]
    with vqlib.watch(models[1]):
        for _ in range(rounds + WARM_UP):
            pictures = torch.rand(32, 3, 56, 56).to(device)
            for i in next(orders):
                seconds[i].append(seconds_of_a_step(*runs[i], pictures))
    first, watched, second = (times[WARM_UP:] for times in seconds)
    ratio = [w / x for plain in (first, second) for w, x in zip(watched, plain, strict=True)]
    noise = [b / a for a, b in zip(first, second, strict=True)]
    return statistics.median(first), statistics.median(ratio), statistics.median(noise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    print("model                   ms a step   watched / plain   plain / plain")
    for name, build in (("vqlib VQVAE", Ours), ("VectorQuantize", Autoencoder)):
        step, ratio, noise = compare(build, torch.device(options.device), options.rounds)
        print(f"{name:22}{1000 * step:11.1f}{ratio:18.3f}{noise:16.3f}")


if __name__ == "__main__":
    main()
