"""A sweep that is killed by SIGKILL at random moments ends in the identical table, bit for bit.

``python -m tests.torture.kill_sweep --kills 20`` prints one line a kill. Sometimes all of its
processes are killed, sometimes only the first one. When a sweep ends before its kill, it is
checked and begun anew. After each kill it is also checked that what was whole is left alone:
nothing is trained twice.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

FILE = """
seeds = 3
[base]
dataset = "digits"
codebook_size = 32
dim = 8
width = 8
batch_size = 16
steps = 40
warmup_steps = 4
[arms.off]
dead_code_threshold = 0.0
[arms.on]
[grid]
decay = [0.9, 0.5]
"""
PATIENCE = 20  # seconds in which a process notices that nobody listens any more
OUTPUT = ("table.csv", "comparison.csv", "sweep.json")


class Sweep:
    """One command and its folders; ``jobs`` worker processes."""

    def __init__(self, folder: Path, jobs: int):
        self.folder, self.cache, self.out = folder, folder / "cache", folder / "out"
        folder.mkdir(parents=True)
        self.settings = os.environ | {"VQLIB_CACHE": str(self.cache), "VQLIB_JOBS": str(jobs)}
        (folder / "arms.toml").write_text(FILE)

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "vqlib", "sweep", "arms.toml", "--out", "out"]
        return subprocess.Popen(
            [*command, "--no-progress"],
            cwd=self.folder,
            env=self.settings,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def finish(self) -> None:
        assert self.start().wait() == 0

    def output(self) -> list[bytes]:
        return [(self.out / name).read_bytes() for name in OUTPUT]

    def trains(self) -> bool:
        """Whether somebody holds a slot."""
        for file in self.cache.glob("slots/*/*.lock"):
            try:
                with FileLock(file, blocking=False):
                    pass
            except Timeout:
                return True
        return False

    def whole(self) -> dict[Path, tuple]:
        """{run's folder: what changes if it is written again}."""
        summaries = list(self.cache.glob("*/summary.json"))
        return {f.parent: (f.stat().st_ino, f.stat().st_mtime_ns) for f in summaries}


def end(process: subprocess.Popen, everybody: bool) -> None:
    os.kill(process.pid, signal.SIGKILL)
    if everybody:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def alive(folder: Path) -> list[int]:
    """Processes that work in ``folder``."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if Path(os.readlink(place)).is_relative_to(folder):
                found.append(int(place.parent.name))
        except (OSError, ValueError):  # it has ended, or it is not ours
            continue
    return found


def torture(folder: Path, kills: int, *, jobs: int = 2, seed: int = 0, tell=print) -> int:
    """Kill so many times; gives how many sweeps were ended and compared. Raises AssertionError."""
    expected = Sweep(folder / "undisturbed", jobs)
    expected.finish()
    draw, ended, killed = random.Random(seed), 0, 0
    while killed < kills:
        sweep = Sweep(folder / f"sweep {ended}", jobs)
        process, before = sweep.start(), sweep.whole()
        while process.poll() is None and killed < kills:
            if draw.random() < 0.8:  # else it may die while it starts
                while process.poll() is None and not sweep.trains():
                    time.sleep(0.02)
            time.sleep(draw.uniform(0, 6))
            if process.poll() is not None:
                break
            everybody = draw.random() < 0.7
            end(process, everybody)
            killed += 1
            after = sweep.whole()
            assert before.items() <= after.items(), "a whole run was written again"
            tell(f"kill {killed}: {'all' if everybody else 'one'}, {len(after)} runs whole")
            process, before = sweep.start(), after
        assert process.wait() == 0
        assert before.items() <= sweep.whole().items(), "a whole run was written again"
        assert sweep.output() == expected.output(), "another table"
        last = time.monotonic() + PATIENCE
        while (left := alive(sweep.folder.resolve())) and time.monotonic() < last:
            time.sleep(0.1)
        assert not left, f"processes live on: {left}"
        ended += 1
    return ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = torture(Path(folder), given.kills, seed=given.seed)
    print(f"{given.kills} kills; {done} sweeps ended, each with the identical table")


if __name__ == "__main__":
    main()
