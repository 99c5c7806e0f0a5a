"""How much sooner eight trainings end on two cores than on one, start of the workers included.

The same sweep, by a process for each core, and in turn by this process alone; each time nothing is
kept. Its wall time is compared with what the trainings took, over the cores. Run it with
`make bench`; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from unittest import mock

from tests.benchmarks.goals import within
from vqlib import experiments

CORES = 2
FASTER = 1.8  # goal: one core's time over two cores'
WALL = 1.25  # goal: the wall time over what the trainings took, divided by the cores
SEEDS = range(8)


def timed(config, jobs: int) -> tuple[float, float]:
    """(seconds of the sweep, seconds that its trainings took)."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):
        os.environ |= {"VQLIB_CACHE": folder, "VQLIB_JOBS": str(jobs)}  # until the block ends
        start = time.perf_counter()
        experiments.sweep({"baseline": config}, SEEDS, progress=False)
        wall = time.perf_counter() - start
        found = [experiments.cached_run(replace(config, seed=seed, threads=1)) for seed in SEEDS]
        return wall, sum(run.summary["seconds"] for run in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    config = experiments.PRESET
    timed(replace(config, steps=5), CORES)  # the pictures are read once
    one, two = zip(
        *((timed(config, 1), timed(config, CORES)) for _ in range(options.rounds)), strict=True
    )
    faster = statistics.median(a[0] / b[0] for a, b in zip(one, two, strict=True))
    wall = statistics.median(CORES * wall / trained for wall, trained in two)
    print(
        f"{CORES} cores {within(faster, FASTER, 'two cores over one', least=True)} times as fast;"
        f" wall time {within(wall, WALL, 'wall over training time / cores')} times the trainings'"
        f" over the cores; {len(SEEDS)} trainings took {statistics.median(t for _, t in one):.1f} s"
        f" alone, {statistics.median(t for _, t in two):.1f} s side by side"
    )


if __name__ == "__main__":
    main()
