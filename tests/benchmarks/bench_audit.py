"""Seconds of an audit without ranks, by layer and size of the codebook. Run it with `make bench`.

At most 10 s each are meant, on a quiet machine with two cores.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from vector_quantize_pytorch import VectorQuantize

import vqlib
from tests.benchmarks.goals import within

DIM = 64
GOAL = 10.0  # seconds


class AveragedQuantizer(nn.Module):
    """Running sums over running counts, as audio codecs have them; expired codes are refilled."""

    def __init__(self, size: int, threshold: float = 2.0, decay: float = 0.99):
        super().__init__()
        self.threshold_ema_dead_code, self.decay = threshold, decay
        self.register_buffer("codebook", torch.randn(size, DIM))
        self.register_buffer("sums", self.codebook.clone())
        self.register_buffer("cluster_size", torch.ones(size))

    @torch.no_grad()
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = z.reshape(-1, DIM)
        indices = torch.cdist(flat, self.codebook).argmin(dim=-1)
        quantized = self.codebook[indices].view_as(z)
        if self.training:
            self._learn(flat, indices)
        return quantized, indices.view(z.shape[:-1]), F.mse_loss(quantized, z)

    def _learn(self, flat: Tensor, indices: Tensor) -> None:
        hits = torch.bincount(indices, minlength=len(self.codebook)).float()
        self.cluster_size.lerp_(hits, 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, indices, flat), 1 - self.decay)
        dead = self.cluster_size < self.threshold_ema_dead_code
        donors = flat[torch.randint(len(flat), (int(dead.sum()),))]
        self.cluster_size[dead] = self.threshold_ema_dead_code
        self.sums[dead] = donors * self.threshold_ema_dead_code
        self.codebook.copy_(self.sums / self.cluster_size[:, None])


def layers(size: int) -> dict:
    """{name: a function that makes a layer of ``size`` codes}."""
    reset = vqlib.DeadCodeReset(threshold=1.0)
    return {
        "vqlib": lambda: vqlib.NormEMAQuantizer(size, DIM, decay=0.9, reset=reset),
        "VectorQuantize": lambda: VectorQuantize(DIM, size, threshold_ema_dead_code=2),
        "sums over counts": lambda: AveragedQuantizer(size),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 4096, 8192])
    sizes = parser.parse_args().sizes
    warnings.simplefilter("ignore")  # batches smaller than the codebook are asked for here
    print("layer                 K  tokens   seconds    load")
    for size in sizes:
        for name, make in layers(size).items():
            for tokens in (None, 1200):
                start = time.perf_counter()
                vqlib.audit(make, ranks=False, tokens=tokens)
                took, load = time.perf_counter() - start, os.getloadavg()[0]
                told = within(took, GOAL, f"seconds of an audit: {name}, K {size}, N {tokens}")
                print(f"{name:17}{size:6}{tokens or '-':>8}{told:>10}{load:8.1f}", flush=True)


if __name__ == "__main__":
    main()
