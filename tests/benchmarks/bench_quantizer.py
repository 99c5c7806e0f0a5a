"""How long a training step of NormEMAQuantizer takes, beside other layers and a bare product.

All take turns in one process, on the same inputs; what counts are ratios of medians. The floor is
the float32 product of inputs and codes, written into a buffer that exists: no exact step can be
faster, unless it leaves products out. "With backward" adds the gradient of the loss. A ratio that
misses its goal is red. Then the same on outputs of the suite's own encoder and codes fitted to
them, where products are left out; ``--encoder`` measures that alone. At last, how much longer a
step takes while every core is busy with something else; ``--load`` measures that alone. Run it
with `make bench`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from vector_quantize_pytorch import VectorQuantize

from tests.benchmarks.goals import versions, within
from vqlib import NormEMAQuantizer, TrainConfig, train
from vqlib.quantization.quantizer import spherical_kmeans
from vqlib.training import data

SHAPES = (  # N, K, D
    (2048, 512, 32),
    (6272, 512, 32),
    (6272, 512, 64),
    (8192, 512, 64),
    (8192, 1024, 256),
    (8192, 8192, 32),
    (8192, 16384, 64),
    (32768, 8192, 64),
    (32768, 65536, 64),
)
SMALL, LARGE, HUGE = 1.6, 1.1, 1.3  # goals: ours over the floor
BELOW = 0.9  # goal on an encoder's outputs, where products can be left out
AHEAD = 4.0  # goal: the fastest other layer over ours
LOADED = 3.0  # goal: a step on busy cores over a quiet one
MOST = 2**29  # similarities; layers that hold them all are left out beyond


class Averaged(nn.Module):
    """A codebook (K, D) that follows the means of its inputs; how these are found is left open."""

    def __init__(self, codebook: Tensor, decay: float = 0.9):
        super().__init__()
        self.codebook, self.counts, self.decay = codebook, torch.zeros(len(codebook)), decay

    def forward(self, z: Tensor) -> Tensor:
        z = F.normalize(z, dim=-1)
        with torch.no_grad():
            codes, bins, sums = self.assigned(z)
            self.counts.lerp_(bins, 1 - self.decay)
            means = torch.where(bins[:, None] > 0, F.normalize(sums, dim=-1), self.codebook)
            self.codebook.copy_(F.normalize(self.codebook.lerp(means, 1 - self.decay), dim=-1))
        return 0.25 * F.mse_loss(codes, z)


class OneHot(Averaged):
    """The textbook form: all similarities, and a one-hot matrix."""

    def assigned(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one_hot = F.one_hot((z @ self.codebook.T).argmax(dim=-1), len(self.codebook)).float()
        return one_hot @ self.codebook, one_hot.sum(dim=0), one_hot.T @ z


class Scatter(Averaged):
    """All distances by cdist, and sums by scatter."""

    def assigned(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        indices = torch.cdist(z, self.codebook).argmin(dim=-1)
        bins = torch.bincount(indices, minlength=len(self.codebook)).float()
        rows = indices[:, None].expand(-1, z.shape[-1])
        sums = torch.zeros_like(self.codebook).scatter_add_(0, rows, z)
        return self.codebook[indices], bins, sums


def lucidrains(codebook: Tensor, expiry: float) -> Callable[[Tensor], Tensor]:
    layer = VectorQuantize(
        codebook.shape[1],
        len(codebook),
        decay=0.9,
        use_cosine_sim=True,
        rotation_trick=False,
        threshold_ema_dead_code=expiry,
    )
    layer.train()(F.normalize(torch.randn(1, 8, codebook.shape[1]), dim=-1))
    layer._codebook.embed.copy_(codebook[None])
    return lambda z: layer(z[None])[2].sum()


def encodec(codebook: Tensor) -> Callable[[Tensor], Tensor] | None:
    """The layer of the package `encodec`, by its file: the package itself wants torchaudio."""
    if "encodec" not in sys.modules:
        spec = importlib.util.find_spec("encodec")
        if spec is None:
            return None
        sys.modules["encodec"] = package = types.ModuleType("encodec")
        package.__path__ = list(spec.submodule_search_locations)
    core = importlib.import_module("encodec.quantization.core_vq")
    layer = core.VectorQuantization(codebook.shape[1], len(codebook), decay=0.9, kmeans_init=False)
    layer.codebook.copy_(codebook)
    return lambda z: layer.train()(z.T[None])[2].sum()


def ours(codebook: Tensor) -> Callable[[Tensor], Tensor]:
    layer = NormEMAQuantizer(*codebook.shape, kmeans_init=False)
    layer.codebook.copy_(codebook)
    return lambda z: layer(z).loss


def floor(n: int, codebook: Tensor) -> Callable[[Tensor], Tensor]:
    """The product alone, in tiles that stay in memory near the cores where that is faster."""
    width = min(len(codebook), 8192)
    rows = min(n, max(512, 2**20 // width))
    tile = torch.empty(rows, width)

    @torch.no_grad()
    def product(z: Tensor) -> Tensor:
        for part in z.split(rows):
            for codes in codebook.split(width):
                torch.mm(part, codes.T, out=tile[: len(part), : len(codes)])
        return tile

    return product


def forms(n: int, k: int, d: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """{name: a training step, from the inputs (N, D) to the loss}, all from one codebook."""
    codebook = F.normalize(torch.randn(k, d), dim=-1)
    found = {"floor": floor(n, codebook), "ours": ours(codebook)}
    if n * k <= MOST:
        found |= {
            "VectorQuantize": lucidrains(codebook, 0),
            "VectorQuantize, expiry": lucidrains(codebook, 2),
            "one-hot": OneHot(codebook.clone()),
            "cdist, scatter": Scatter(codebook.clone()),
        }
        if layer := encodec(codebook):
            found["encodec"] = layer
    return found


def inputs(n: int, d: int) -> Tensor:
    """(N, D) like an encoder's: around some directions, of several lengths."""
    centres = torch.randn(64, d)
    return centres[torch.randint(64, (n,))] + 0.5 * torch.randn(n, d)


def seconds(step: Callable[[Tensor], Tensor], z: Tensor, *, backward: bool) -> float:
    start = time.perf_counter()
    loss = step(z)
    if backward and loss.requires_grad:
        loss.backward()
    return time.perf_counter() - start


def medians(shape: tuple[int, int, int], rounds: int, *, backward: bool) -> dict[str, float]:
    """Median seconds of each of `forms`, in turns."""
    steps = forms(*shape)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 2):
        z = inputs(shape[0], shape[2]).requires_grad_()
        for name, step in steps.items():
            times[name].append(seconds(step, z, backward=backward))
            z.grad = None
    return {name: statistics.median(t[2:]) for name, t in times.items()}


def goal(n: int, k: int, d: int) -> float:
    """At most so many floors."""
    return HUGE if k >= 65536 else LARGE if k >= 8192 else SMALL


def table(rounds: int, shapes=SHAPES) -> None:
    print("median ms of the floor; ours over the floor (goal), with backward; others over ours")
    for shape in shapes:
        fewer = max(3, rounds // (1 + shape[0] * shape[1] // 2**25))
        plain = medians(shape, fewer, backward=False)
        whole = medians(shape, fewer, backward=True)
        most = goal(*shape)
        over = plain["ours"] / plain["floor"]
        others = {n: t / whole["ours"] for n, t in whole.items() if n not in ("floor", "ours")}
        where = ", ".join(map(str, shape))
        floors = within(over, most, f"step over the floor: {where}")
        told = "  ".join(
            f"{n} {within(r, AHEAD, f'{n} over ours: {where}', least=True)}"
            for n, r in others.items()
        )
        print(
            f"{where:18}{1000 * plain['floor']:9.2f}   {floors} "
            f"({most:g})   {whole['ours'] / whole['floor']:.2f}   {told or 'others not run'}",
            flush=True,
        )


def encoded(steps: int = 100) -> Tensor:
    """Unit outputs (n, D) of the suite's own encoder for all training pictures, mixed."""
    config = TrainConfig(steps=steps, val_every=steps)
    encode, pictures = train(config, progress=False).model.encode, data.of(*config.source).train
    with torch.no_grad():
        parts = [encode(pictures.batch(part.numpy())) for part in torch.arange(4096).split(64)]
    tokens = F.normalize(torch.cat(parts).flatten(0, -2), dim=-1)
    return tokens[torch.randperm(len(tokens))]


def on_outputs(rounds: int, sizes=((8192, 8192), (8192, 16384), (32768, 8192))) -> None:
    """A step over the floor, on `encoded` inputs and codes fitted to others of them."""
    tokens = encoded()
    for n, k in sizes:
        codebook, _ = spherical_kmeans(tokens[: 4 * k], k, torch.Generator(), iterations=2)
        steps = {"floor": floor(n, codebook), "ours": ours(codebook)}
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            z = tokens[torch.randint(4 * k, len(tokens) - n, ()) :][:n]
            for name, step in steps.items():
                times[name].append(seconds(step, z, backward=False))
        medians = {name: statistics.median(t) for name, t in times.items()}
        over = medians["ours"] / medians["floor"]
        told = within(over, BELOW, f"step over the floor, encoder's outputs: {n}, {k}")
        print(f"{n}, {k}, encoder's outputs: {1000 * medians['floor']:.0f} ms   {told} ({BELOW:g})")


SPIN = "import torch\na = torch.randn(512, 512)\nwhile True:\n    a @ a"


def under_load(rounds: int, shape=(8192, 8192, 32)) -> None:
    """A step with a busy process for every core, over a quiet one."""
    step = ours(F.normalize(torch.randn(shape[1], shape[2]), dim=-1))

    def median() -> float:
        z = inputs(shape[0], shape[2]).requires_grad_()
        return statistics.median(seconds(step, z, backward=True) for _ in range(rounds))

    median()
    quiet = median()
    busy = [
        subprocess.Popen([sys.executable, "-c", SPIN], env=os.environ | {"OMP_NUM_THREADS": "1"})
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        time.sleep(5)  # until they have begun
        loaded = median()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    ratio = within(loaded / quiet, LOADED, "step on busy cores over a quiet one, K 8,192")
    print(f"{shape}: a step on busy cores over a quiet one {ratio} (at most {LOADED:g})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--load", action="store_true", help="on busy cores only")
    parser.add_argument("--encoder", action="store_true", help="on an encoder's outputs only")
    options = parser.parse_args()
    torch.set_num_threads(2)
    print(
        f"{versions('torch', 'vector-quantize-pytorch', 'encodec')}; load {os.getloadavg()[0]:.1f}"
    )
    if not (options.load or options.encoder):
        table(options.rounds)
    if not options.load:
        on_outputs(max(3, options.rounds // 2))
    if not options.encoder:
        under_load(options.rounds)


if __name__ == "__main__":
    main()
