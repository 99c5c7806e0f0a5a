"""A long watch and a long play: what they hold in memory stays bounded.

``python -m tests.torture.endurance --steps 100000 --minutes 60`` watches a small layer for so many
steps, once with few rows and once with a row each step, and plays the playground for as many steps
as it makes in so many minutes, by a clock that does not wait. Each is sampled fifty times. After a
warm-up nothing may grow but the rows that were asked for.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterable
from itertools import cycle
from statistics import median
from typing import NamedTuple, Protocol

import psutil
import torch

import vqlib
from vqlib.playground import Playground, live
from vqlib.playground.frames import TRAIL
from vqlib.playground.presets import PRESETS
from vqlib.playground.world import HISTORY
from vqlib.watching.track import KEEP

SAMPLES = 50
WARM = 0.2  # of the way
GROWTH = 24.0  # MB that an allocator may take after the warm-up
ROW = 4000  # bytes of a row of a history, at most
PRESET = 2000  # steps of play, after which another one is chosen


class Grown(AssertionError):
    """Something that should stay bounded has grown."""


class Sample(NamedTuple):
    step: int
    megabytes: float  #: of this process
    objects: int  #: that Python's collector knows
    rows: int  #: of histories that were asked for


class Subject(Protocol):
    name: str

    def go(self, steps: int) -> None: ...

    def rows(self) -> int: ...

    def lengths(self) -> dict[str, tuple[int, int]]:
        """{what is kept: (how many there are, how many there may be)}."""
        ...


class Watching:
    """A training step after the other under a watch; now and then an evaluation."""

    def __init__(self, every: int):
        self.name, self.every, self.done = f"watch, every={every}", every, 0
        self.layer = vqlib.NormEMAQuantizer(32, 8, reset=vqlib.DeadCodeReset(threshold=1.0))
        self.generator = torch.Generator().manual_seed(0)
        self.told = 0
        self.watch = vqlib.watch(self.layer, every=every, window=4, on_row=self._hear).start()

    def _hear(self, row: dict) -> None:
        self.told += 1

    def go(self, steps: int) -> None:
        for _ in range(steps):
            self.done += 1
            z = torch.randn(48, 8, generator=self.generator, requires_grad=True)
            quantized, _, loss = self.layer.train()(z)
            (quantized.square().mean() + loss).backward()
            if self.done % 1000 == 0:
                self.layer.eval()(z.detach())

    def rows(self) -> int:
        return sum(len(track.rows) for track in self.watch._tracks)

    def lengths(self) -> dict[str, tuple[int, int]]:
        (track,) = self.watch._tracks
        asked = self.done // self.every + self.done // 1000
        return {
            "rows": (len(track.rows), asked),
            "rows told": (self.told, asked),
            "waiting": (len(track.pending), KEEP),
            "window": (len(track.window), 4),
            "gradients awaited": (len(track.awaited), KEEP + 1),
        }


class Clock:
    """Time as a page at 30 pictures a second would see it."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Playing:
    """The playground as the page plays it; another preset now and then."""

    name = "play"

    def __init__(self) -> None:
        self.clock = Clock()
        self.play = Playground()
        self.sent = 0
        self.play.canvas.send = self._hear
        self.presets = cycle(PRESETS)

    def _hear(self, message: dict, buffers: Iterable = ()) -> None:
        self.sent += message["kind"] == "frame"

    def go(self, steps: int) -> None:
        module, live.time = live.time, self.clock
        try:
            self.play.play()
            for _ in range(steps):
                self.clock.now += 1.0001 / self.play.canvas.speed
                self.play.canvas._hear(self.play.canvas, {"kind": "next"}, [])
                if self.play.a.step_number >= PRESET:
                    self.play.preset(next(self.presets))
        finally:
            live.time = module

    def rows(self) -> int:
        return 0

    def lengths(self) -> dict[str, tuple[int, int]]:
        worlds = (self.play.a, self.play.b)
        return {
            "curves": (max(len(world.rows) for world in worlds), HISTORY),
            "trails": (max(len(t.places) for t in self.play.canvas._trails.values()), TRAIL),
            "sides": (len(self.play.canvas._trails), 2),
        }


def megabytes() -> float:
    return psutil.Process().memory_info().rss / 2**20


def endure(
    subject: Subject, steps: int, tell: Callable[[str], None], count: int = SAMPLES
) -> list[Sample]:
    """Let it go on for so many steps; the samples. Raises Grown."""
    samples, done, start = [], 0, time.monotonic()
    for n in range(1, count + 1):
        subject.go(steps * n // count - done)
        done = steps * n // count
        gc.collect()
        samples.append(Sample(done, megabytes(), len(gc.get_objects()), subject.rows()))
        for name, (there, most) in subject.lengths().items():
            if there > most:
                raise Grown(f"{subject.name}: {there:,} {name} at step {done:,}, at most {most:,}")
    tell(f"{subject.name}: {said(samples)}; {time.monotonic() - start:.0f} s")
    refuse_growth(subject.name, samples)
    return samples


def growth(samples: list[Sample]) -> tuple[float, int, int]:
    """(MB, objects, rows) from the end of the warm-up to the end."""
    ends = samples[int(WARM * len(samples)) :]
    part = max(1, len(ends) // 5)
    first, last = ends[:part], ends[-part:]
    mb = median(s.megabytes for s in last) - median(s.megabytes for s in first)
    objects = median(s.objects for s in last) - median(s.objects for s in first)
    return mb, int(objects), int(median(s.rows for s in last) - median(s.rows for s in first))


def said(samples: list[Sample]) -> str:
    mb, objects, rows = growth(samples)
    row = f" ({mb * 2**20 / rows:,.0f} bytes a row)" if rows else ""
    return (
        f"{samples[-1].step:,} steps, {samples[-1].megabytes:.0f} MB; after the warm-up "
        f"{mb:+.1f} MB, {objects:+,} objects, {rows:+,} rows{row}"
    )


def refuse_growth(name: str, samples: list[Sample]) -> None:
    """Raises Grown if memory or objects grew by more than the rows that were asked for."""
    mb, objects, rows = growth(samples)
    if mb > GROWTH + rows * ROW / 2**20 or objects > 1000 + 2 * rows:
        raise Grown(f"{name}: {said(samples)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000, help="of each watch")
    parser.add_argument("--minutes", type=float, default=60, help="of play")
    given = parser.parse_args()
    torch.set_num_threads(1)

    def tell(line: str) -> None:
        print(line, flush=True)

    grown = 0
    for make, steps in (
        (lambda: Watching(100), given.steps),
        (lambda: Watching(1), given.steps),
        (Playing, round(given.minutes * 60 * live.Live.speed.default_value)),
    ):
        try:
            endure(make(), steps, tell)
        except Grown as error:
            tell(f"GROWN: {error}")
            grown += 1
    return int(grown > 0)


if __name__ == "__main__":
    sys.exit(main())
