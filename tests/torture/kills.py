"""Trainings, sweeps and suites that are killed at random moments: nothing is lost, nothing stays.

``python -m tests.torture.kills --kills 20`` prints one line a kill, and figures at the end. Each
victim is begun again until it ends by itself. Then it must have left what an undisturbed one
leaves, to the last bit. After each kill: no half-written file is trusted, no process lives on,
nobody holds the folder. Mostly by SIGKILL; sometimes by SIGTERM, SIGHUP or two Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.suite.tiny_suite import RECORD, parameters, write_notebook, write_settings
from tests.torture import kill_sweep
from tests.torture.kill_sweep import PATIENCE, alive
from vqlib import cli
from vqlib.suite import ownership, report
from vqlib.training import checkpoints, locks
from vqlib.training.runs import Run

SIGNALS = [*[(signal.SIGKILL,)] * 7, (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT,) * 2]
SHARES = {"train": 0.6, "run": 0.25, "sweep": 0.15}  # of the kills
TOGETHER = 4  # trainings that are started at once on one folder


class Lost(AssertionError):
    """A kill that cost something."""


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Lost(what)


def begin(folder: Path, arguments: list[str], ready: Callable[[], None] = lambda: None) -> int:
    """The process id of ``vqlib`` with these arguments, in ``folder``.

    A fork of this process: what takes longest, the imports, is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        for number in {s for group in SIGNALS for s in group} - {signal.SIGKILL, signal.SIGINT}:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream in (1, 2):
            os.dup2(os.open("printed", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
        ready()
        status = cli.main(arguments)
    finally:
        os._exit(status)


def ended(child: int) -> int | None:
    """A child's exit status, negative for a signal; None while it runs."""
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Victim:
    """A command in a folder: begun, killed, begun again."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True)
        self.seconds = 0.0  # that it takes from when it holds its folder

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def begun(self) -> bool:
        """Whether it has got beyond its start."""
        return locks.is_held(self.folder / "out")

    def whole(self) -> None:
        """Raises Lost if what can be read now is not right."""

    def left(self) -> dict:
        """What it leaves, for comparison."""
        raise NotImplementedError

    def undisturbed(self) -> dict:
        child, start = begin(self.folder, self.arguments()), None
        while (status := ended(child)) is None:
            start = start or (time.monotonic() if self.begun() else None)
            time.sleep(0.002)
        self.seconds = time.monotonic() - (start or time.monotonic())
        expect(status == 0, f"undisturbed, it ended with {status}: {self.printed()}")
        return self.left()

    def printed(self) -> str:
        return (self.folder / "printed").read_text(errors="replace")[-2000:]


class Train(Victim):
    """A training that writes a checkpoint every few steps."""

    FLAGS = (
        *("--dataset=digits", "--codebook-size=32", "--dim=8", "--width=8", "--batch-size=16"),
        *("--steps=60", "--warmup-steps=4", "--dead-code-threshold=1", "--trace-every=9"),
        *("--usage-window=3", "--val-every=25", "--checkpoint-every=2", "--threads=1"),
        *("--device=cpu", "--no-progress", "--out-dir=out"),
    )

    def arguments(self) -> list[str]:
        goes_on = (self.folder / "out" / "config.json").exists()
        return ["train", *self.FLAGS, *(["--resume"] if goes_on else [])]

    def whole(self) -> None:
        out = self.folder / "out"
        if (out / "checkpoint.safetensors").exists():
            checkpoints.read_tensors(out / "checkpoint.safetensors")
        if (out / "summary.json").exists():
            Run.load(out)

    def left(self) -> dict:
        out = self.folder / "out"
        there = {path.name: path.read_bytes() for path in out.iterdir() if path.name != locks.NAME}
        for name in ("summary.json", "checkpoint.safetensors"):  # they hold the seconds it took
            there[name] = name in there
        return there


class Suite(Victim):
    """Two small notebooks, their gates and their report."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        cells = [RECORD, "import time; time.sleep(0.3)", "record('x', x)"]
        for name in ("01_a", "02_b"):
            write_notebook(self.folder / "notebooks", name, parameters("x = 1"), *cells)
        gates = "".join(
            f'[{n}.records]\n"x" = {{ full = {{ max = 5 }} }}\n' for n in ("01_a", "02_b")
        )
        write_settings(self.folder / "notebooks", gates, full="")

    def arguments(self) -> list[str]:
        return ["check", "--out", "out"]

    def whole(self) -> None:
        out = self.folder / "out"
        for place in (out / "report", out / "report.previous", out / "notebooks"):
            if place.exists():
                ownership.refuse_others(place)
        if (out / "report").exists():
            expect(report.passed(out / "report"), "a report that is not whole")

    def left(self) -> dict:
        out = self.folder / "out"
        self.whole()
        places = {path.relative_to(out).as_posix() for path in out.rglob("*")}
        return {"names": {p for p in places if not p.startswith("report.previous")}}


def one(victim: Victim, draw: random.Random, seconds: float) -> tuple[str, int]:
    """Begin the victim and kill it at a random moment: (how, its exit status)."""
    child = begin(victim.folder, victim.arguments())
    if draw.random() < 0.85:  # else it may die while it starts
        while not victim.begun():
            if (status := ended(child)) is not None:
                return "ended by itself", status
            time.sleep(0.002)
    numbers = draw.choice(SIGNALS)
    time.sleep(draw.uniform(0, seconds))
    for number in numbers:
        os.kill(child, number)  # of a child that has ended, and was not waited for: no harm
        time.sleep(0.01)
    return " ".join(signal.Signals(n).name for n in numbers), wait(child)


def cleared(victim: Victim) -> None:
    """Raises Lost unless, in a while, nobody works in the victim's folder."""
    end = time.monotonic() + PATIENCE
    while (left := alive(victim.folder)) and time.monotonic() < end:
        time.sleep(0.05)
    expect(not left, f"processes live on: {left}")
    expect(not locks.is_held(victim.folder / "out"), "the folder is still held")


def torture(make: type[Victim], folder: Path, kills: int, draw: random.Random, tell) -> Counter:
    """Kill so many times; what became of it: tried, survived, lost, ended."""
    calm = make(folder / "undisturbed")
    expected, found = calm.undisturbed(), Counter()
    while found["tried"] < kills:
        victim = make(folder / f"{found['ended']} {found['lost']}")
        try:
            while found["tried"] < kills:
                how, status = one(victim, draw, calm.seconds)
                if status == 0:
                    break  # it was faster
                found["tried"] += 1
                cleared(victim)
                victim.whole()
                found["survived"] += 1
                tell(f"{make.__name__.lower()} {found['tried']}: {how}, status {status}")
            expect(wait(begin(victim.folder, victim.arguments())) == 0, victim.printed())
            cleared(victim)
            left = victim.left()
            other = [n for n in expected | left if left.get(n) != expected.get(n)]
            expect(not other, f"it left something else: {other} {left.keys() ^ expected.keys()}")
            found["ended"] += 1
        except (Lost, OSError, ValueError) as loss:
            found["lost"] += 1
            tell(f"LOST after {found['tried']} kills in {victim.folder}: {loss}")
    return found


def at_once(victim: Victim) -> list[int]:
    """Children that wait for one another before they begin."""
    start, go = os.pipe()

    def ready() -> None:
        os.close(go)
        os.read(start, 1)

    children = [begin(victim.folder, victim.arguments(), ready) for _ in range(TOGETHER)]
    os.close(start)
    os.close(go)  # they read the pipe's end
    return children


def together(folder: Path, rounds: int, tell) -> Counter:
    """Trainings started at once on one folder: one goes on, the others are refused with 2."""
    expected, found = Train(folder / "undisturbed").undisturbed(), Counter()
    for number in range(rounds):
        victim = Train(folder / str(number))
        statuses = sorted(map(wait, at_once(victim)))
        found["tried"] += 1
        one_ran = statuses == [0, *[2] * (TOGETHER - 1)] and victim.left() == expected
        found["survived" if one_ran else "lost"] += 1
        said = victim.printed().count("is in use by process")
        tell(f"together {number + 1}: {statuses}, {said} named the holder")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=SHARES, default=list(SHARES))
    given = parser.parse_args()
    draw, figures = random.Random(given.seed), {}
    total = sum(SHARES[kind] for kind in given.kinds)

    def tell(line: str) -> None:
        print(line, flush=True)

    with tempfile.TemporaryDirectory() as place:
        for kind in given.kinds:
            kills, folder = round(given.kills * SHARES[kind] / total), Path(place, kind)
            if kind == "sweep":
                sweeps = kill_sweep.torture(folder, kills, seed=given.seed, tell=tell)
                figures[kind] = Counter(tried=kills, survived=kills, ended=sweeps)
            else:
                victim = {"train": Train, "run": Suite}[kind]
                figures[kind] = torture(victim, folder, kills, draw, tell)
        if "train" in given.kinds:
            rounds = max(1, given.kills // 10)
            figures["together"] = together(Path(place, "together"), rounds, tell)
    print(f"\n{'':10}tried  survived  lost  ended the same")
    for kind, found in figures.items():
        numbers = (found[name] for name in ("tried", "survived", "lost", "ended"))
        print("{:10}{:5}{:10}{:6}{:16}".format(kind, *numbers))
    return int(any(found["lost"] for found in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
