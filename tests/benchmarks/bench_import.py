"""What importing vqlib costs a program that imports torch and pandas anyway.

Each measurement is a fresh interpreter, and the programs take turns. Seconds are the processor's,
which other work on the machine disturbs less than the clock's. What counts is the median
over rounds of the difference to torch and pandas in the same round; that of torch and pandas
again says how far the machine's noise reaches. Run it with `make bench`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from tests.benchmarks.goals import within
from tests.test_light_import import COMMANDS, IMPORT, NAMES

GOAL = 0.2  # seconds
BASE = "import torch, pandas\n"
PROGRAMS = {
    "torch and pandas": "",
    "the same again": "",
    "import vqlib": IMPORT,
    "its light names": NAMES,
    "the command line": COMMANDS,
}


def seconds(program: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, "-c", BASE + program], check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])  # of children: user and system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for program in PROGRAMS.values():
        seconds(program)  # bytecode is compiled, files come into memory
    for _ in range(options.rounds):
        for name, program in PROGRAMS.items():
            times[name].append(seconds(program))
    base = times["torch and pandas"]
    print(f"program               seconds   beyond torch and pandas (at most {GOAL})")
    for name, measured in times.items():
        if measured is base:
            continue
        beyond = statistics.median(m - b for m, b in zip(measured, base, strict=True))
        told = within(beyond, GOAL, f"seconds beyond torch and pandas: {name}")
        print(f"{name:20}{statistics.median(measured):9.2f}{told:>10}")


if __name__ == "__main__":
    main()
