"""How the cost of a training step grows with N, K and D: an exponent each, and a figure.

One of the three is varied at a time. The sizes of one line take turns in one process. An exponent
is the slope of log seconds over log size, by least squares over the upper half of the sizes, where
what a step costs in any case no longer counts. The report shows what is kept in docs/images; run it
with `python -m tests.benchmarks.bench_growth --out docs/images`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from tests.benchmarks.bench_quantizer import inputs, ours, seconds
from tests.benchmarks.goals import versions
from vqlib.lessons import figures

BASE = {"N": 8192, "K": 1024, "D": 64}
SIZES = {
    "N": [1024, 2048, 4096, 8192, 16384, 32768],
    "K": [128, 256, 512, 1024, 2048, 4096, 8192],
    "D": [8, 16, 32, 64, 128, 256],
}
NAMES = {"N": "tokens, N", "K": "codes, K", "D": "dimensions, D"}
TICKS = (5, 10, 20, 50, 100)  # milliseconds
COMMAND = "python -m tests.benchmarks.bench_growth --out docs/images"


def grown(letter: str, rounds: int) -> pd.Series:
    """Median seconds of a step, forward and backward, by size."""
    made = {}
    for size in SIZES[letter]:
        shape = BASE | {letter: size}
        step = ours(F.normalize(torch.randn(shape["K"], shape["D"]), dim=-1))
        made[size] = (step, inputs(shape["N"], shape["D"]).requires_grad_(), [])
    for _ in range(rounds + 1):
        for step, z, times in made.values():
            times.append(seconds(step, z, backward=True))
    return pd.Series({size: statistics.median(times[1:]) for size, (*_, times) in made.items()})


def fitted(cost: pd.Series) -> tuple[float, pd.Series]:
    """The exponent, and the line through the upper half of the sizes."""
    upper = cost.iloc[len(cost) // 2 :]
    slope, height = np.polyfit(np.log(upper.index), np.log(upper), 1)
    return float(slope), pd.Series(np.exp(height) * upper.index**slope, upper.index)


def exponent(cost: pd.Series) -> float:
    return fitted(cost)[0]


def draw(costs: dict[str, pd.Series]) -> plt.Figure:
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True, layout="constrained")
    for axis, (letter, cost) in zip(axes, costs.items(), strict=True):
        others = ", ".join(f"{n} {v:,}" for n, v in BASE.items() if n != letter)
        axis.loglog(cost.index, 1000 * cost, "o", color="C0")
        slope, line = fitted(cost)
        axis.loglog(line.index, 1000 * line, color="C0")
        axis.set_title(f"grows as {letter}$^{{{slope:.2f}}}$", size=11)
        axis.set_xlabel(f"{NAMES[letter]}\n({others})", size=9)
        axis.set_xticks(cost.index[::2], [f"{size:,}" for size in cost.index[::2]])
        axis.set_yticks(TICKS, [f"{tick}" for tick in TICKS])
        axis.minorticks_off()
    axes[0].set_ylabel("milliseconds a step")
    return figure


def table(costs: dict[str, pd.Series]) -> pd.DataFrame:
    """A row a size, as the report reads it (`vqlib.suite.growth`)."""
    origin = {
        "date": datetime.date.today().isoformat(),
        "command": COMMAND,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    rows = [
        {**origin, "varied": letter, "size": size, "seconds": s, "exponent": exponent(cost)}
        for letter, cost in costs.items()
        for size, s in cost.items()
    ]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="folder for growth.png and growth.csv")
    options = parser.parse_args()
    torch.set_num_threads(2)
    print(f"{versions('torch')}; load {os.getloadavg()[0]:.1f}")
    costs = {letter: grown(letter, options.rounds) for letter in SIZES}
    for letter, cost in costs.items():
        told = ", ".join(f"{size:,}: {1000 * s:.1f}" for size, s in cost.items())
        print(f"{NAMES[letter]:14} exponent {exponent(cost):.2f}   ms a step {told}")
    if options.out:
        figures.curves.set_style()
        draw(costs).savefig(options.out / "growth.png", dpi=150)
        table(costs).to_csv(options.out / "growth.csv", index=False)


if __name__ == "__main__":
    main()
