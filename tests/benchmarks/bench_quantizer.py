"""How long a training step of NormEMAQuantizer takes, beside the textbook form.

The textbook form keeps the N x K similarities and a one-hot matrix. Both run in turn in one
process; what counts is the ratio of the medians. Run it with `make bench`.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.nn import functional as F

from vqlib import NormEMAQuantizer

SIZES = ((6272, 512, 64), (6272, 4096, 64), (16384, 8192, 32))  # N, K, D


def textbook_step(z, codebook, cluster_size, decay=0.9, beta=0.25):
    """One training step with a one-hot matrix."""
    z = F.normalize(z, dim=-1)
    indices = (z @ codebook.T).argmax(dim=-1)
    one_hot = F.one_hot(indices, len(codebook)).float()
    codes = one_hot @ codebook
    with torch.no_grad():
        bins = one_hot.sum(dim=0)
        cluster_size.mul_(decay).add_(bins, alpha=1 - decay)
        means = F.normalize(one_hot.T @ z, dim=-1)
        means = torch.where(bins[:, None] > 0, means, codebook)
        codebook.copy_(F.normalize(decay * codebook + (1 - decay) * means, dim=-1))
    return beta * F.mse_loss(codes.detach(), z)


def compare(n: int, k: int, d: int, device: torch.device, rounds: int) -> tuple[float, float]:
    """Median seconds a step: (ours, textbook), forward and backward."""
    quantizer = NormEMAQuantizer(k, d, kmeans_init=False).to(device)
    codebook, cluster_size = quantizer.codebook.clone(), quantizer.cluster_size.clone()
    z = torch.randn(n, d, device=device, requires_grad=True)
    forms = (lambda: quantizer(z).loss, lambda: textbook_step(z, codebook, cluster_size))
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 3):
        for form, times in zip(forms, seconds, strict=True):
            start = time.perf_counter()
            form().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return statistics.median(seconds[0][3:]), statistics.median(seconds[1][3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    print("      N      K    D   textbook / ours")
    for n, k, d in SIZES:
        ours, textbook = compare(n, k, d, torch.device(options.device), options.rounds)
        print(f"{n:7d}{k:7d}{d:5d}   {textbook / ours:.2f} x")


if __name__ == "__main__":
    main()
