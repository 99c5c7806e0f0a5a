"""How much longer a training takes while it is drawn: by the panel, and by matplotlib instead.

Trainings of the panel's default setting run in turn in one process: plain; in the panel, which
sends numbers that the browser draws; and with a matplotlib figure drawn as often. Plain runs
before and after tell how far the machine's noise reaches. No browser is attached here; with one
on the same two cores the panel's share grows. Run it with `make bench`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace

from vqlib.playground import Trainings
from vqlib.playground.demos import png
from vqlib.playground.trainings import overviews, runview, worker
from vqlib.playground.trainings.settings import BASE
from vqlib.training.store import RunStore


def plain(config, callbacks=()) -> None:
    store = RunStore(tempfile.mkdtemp())
    store.train(store.new("a"), config, callbacks)


def panel(config) -> None:
    Trainings(tempfile.mkdtemp(), config).train(wait=True)


def matplotlib(config) -> None:
    curves, drawn = worker.Curves(), [0.0, 0]

    def draw(trainer):
        rows = trainer.recorder.rows
        curves.extend(rows[drawn[1] :])
        drawn[1] = len(rows)
        if time.perf_counter() - drawn[0] >= worker.FRAME_SECONDS:
            use = worker.Use(trainer.recorder.window[-1].numpy(), f"step {trainer.step}")
            png(overviews.overview({"a": (runview.look(0), curves)}, "a", use, None))
            drawn[0] = time.perf_counter()

    plain(config, [draw])


def seconds(train, config) -> float:
    start = time.perf_counter()
    train(config)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    config = replace(BASE, steps=given.steps)
    plain(replace(config, steps=5))  # the pictures are read once
    ways = {"plain": plain, "panel": panel, "matplotlib": matplotlib, "plain again": plain}
    taken = {name: [] for name in ways}
    for _ in range(given.rounds):
        for name, train in ways.items():
            taken[name].append(seconds(train, config))
    base = taken["plain"]
    for name, values in taken.items():
        ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
        print(f"{name:12} {statistics.median(values):6.2f} s a training, {ratio:.2f} x plain")


if __name__ == "__main__":
    main()
