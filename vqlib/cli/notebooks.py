"""Commands for notebooks: execute, check, calibrate, compare, and write a class's editions."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vqlib.cli.common import split_pairs
from vqlib.quantization.ranges import SettingsError

Notebooks = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="[NOTEBOOK ...]", help_behavior_hint=""),
]
Bound = tyro.conf.UseAppendAction[tuple[str, ...]]


@dataclass(frozen=True)
class Execution:
    """What `run` and `check` have in common."""

    notebooks: Notebooks = ()
    """Which notebooks: 01, a name or a path. Default: all."""
    profile: str | None = None
    """How much each notebook computes: quick, full or trial. Default: full. For notebooks that are
    not the suite's: a TOML file with the values of parameters. Default: their own."""
    set: Bound = ()
    """NAME=VALUE for a parameter of the notebooks; wins over the profile. Can be given several
    times."""
    jobs: int = 2
    """How many notebooks run at once."""
    timeout: float = 1800.0
    """Time limit for each notebook, in seconds."""

    def options(self, out: Path) -> dict:
        """As arguments of `suite.run`. Raises SuiteError for a notebook that is not there."""
        from vqlib import suite

        chosen = suite.find(self.notebooks) if self.notebooks else None
        return {"notebooks": chosen, "profile": self.profile or "full", "out": out, **self.how()}

    def foreign(self, out: Path, expected: Path | None) -> dict:
        """As arguments of `suite.run`, for notebooks that are not the suite's."""
        from vqlib.suite import foreign

        paths = self.paths()
        return {
            "notebooks": paths,
            "profile": self.profile and Path(self.profile),
            "expected": expected or foreign.expected_beside(paths),
            "out": out,
            **self.how(),
        }

    def paths(self) -> list[Path]:
        """The notebooks as paths. Raises SettingsError if there is none."""
        if not self.notebooks:
            raise SettingsError("expected the path of a notebook, got none")
        return [Path(name) for name in self.notebooks]

    def how(self) -> dict:
        """How to execute, whatever it is. Raises SettingsError for a parameter without a value."""
        bound = {"common": _bound(self.set)} if self.set else None
        return {"overrides": bound, "jobs": self.jobs, "timeout": self.timeout}


Chosen = Annotated[Execution, tyro.conf.arg(name="")]
EVERYTHING = Execution()


def run(execution: Chosen = EVERYTHING, out: Path = Path("build")) -> int:
    """Execute the notebooks and write an HTML report.

    Args:
        execution: What to execute, and how.
        out: Folder for the executed notebooks and the report.
    """
    from vqlib import suite
    from vqlib.suite import tables

    results = suite.run(**execution.options(out))
    _print_failures(results)
    table = tables.before_after_text(results)
    if table:
        print(f"\n{table}")
    print(f"\n{tables.gates_summary(results)}")
    return _close(out, suite.status(results, gates=False))


def check(
    execution: Chosen = EVERYTHING,
    out: Path = Path("build/check"),
    expected: Path | None = None,
    controls: bool = False,
) -> int:
    """Execute the notebooks and check the numbers they record against the gates.

    The notebooks are those of the suite, or any others, given by their paths. Beside the report
    stand results.json and junit.xml. Exit status 1 if a gate fails, 2 if a notebook could not run.

    Args:
        execution: What to execute, and how. For notebooks that are not the suite's, --profile is
            a TOML file with the values of parameters.
        out: Folder for the executed notebooks and the report.
        expected: The file of gates for notebooks that are not the suite's. Default: expected.toml
            beside them.
        controls: Also execute each planted fault of the file of gates, without --set; exit status
            1 if a gate that it must turn red stays green.
    """
    from vqlib import suite
    from vqlib.suite import lineup, tables

    ours = expected is None and all(map(lineup.is_of_a_suite, execution.notebooks))
    options = execution.options(out) if ours else execution.foreign(out, expected)
    status = suite.check(**options)
    if controls and status != 2:
        options.pop("overrides")
        missed = suite.run_controls(**options)
        print(f"\n{tables.controls_text(missed)}")
        status = max(status, int(bool(missed)))
    return _close(out, status)


def expect(execution: Chosen = EVERYTHING, out: Path | None = None) -> int:
    """Write a first file of gates for notebooks that have none, from one execution of each.

    Never overwrites a file. Exit status 2 if a notebook could not run or recorded nothing.

    Args:
        execution: What to execute, and how. --profile is a TOML file with the values of parameters.
        out: The file to write. Default: expected.toml beside the notebooks.
    """
    from vqlib import suite
    from vqlib.suite import expecting, foreign

    paths = execution.paths()
    place = out or foreign.expected_beside(paths)
    profile = execution.profile and Path(execution.profile)
    results = suite.expect(paths, place, profile=profile, progress=True, **execution.how())
    _print_failures(results)
    if any(result.error for result in results):
        return 2
    print("one execution is a start only; what you decide now:")
    print(*(f"  - {line}" for line in expecting.DECIDE), "", place, sep="\n")
    return 0


@dataclass(frozen=True)
class Repetition(Execution):
    """What `calibrate` and `trust` have in common."""

    profile: str | None = None
    """How much each notebook computes. Default: quick."""
    seeds: int = 10
    """How many times each notebook is executed on each kind of machine, each time on fresh
    seeds."""
    kinds: tuple[str, ...] = ("default:1", "avx2:2")
    """Kinds of machine that this one stands in for: the instructions of torch's own kernels
    (native, default, avx2, avx512), and how many threads."""

    def lineup(self, expected: Path | None = None):
        """The notebooks, read and checked, and their file of gates. Raises SuiteError."""
        from vqlib.suite import foreign, lineup
        from vqlib.suite.run import load

        bound = self.how()["overrides"]
        if expected is None and all(map(lineup.is_of_a_suite, self.notebooks)):
            chosen = lineup.find(self.notebooks) if self.notebooks else None
            gates = lineup.directory_of(chosen) / foreign.EXPECTED
            return load(chosen, self.profile or "quick", overrides=bound), gates
        paths = self.paths()
        gates = expected or foreign.expected_beside(paths)
        values = self.profile and Path(self.profile)
        return load(paths, values, overrides=bound, expected=gates), gates

    def execution(self) -> dict:
        """As arguments of `repeats.execute`."""
        return {"jobs": self.jobs, "timeout": self.timeout}


Repeated = Annotated[Repetition, tyro.conf.arg(name="")]
REPEATED = Repetition()


def calibrate(
    repetition: Repeated = REPEATED,
    first: int = 100,
    out: Path = Path("build/calibrate"),
    expected: Path | None = None,
    write: bool = False,
) -> int:
    """Measure each recorded number over fresh seeds and kinds of machine, and set the bands.

    Prints where each gate held, and what would change in the file of gates. The same command again
    does only what is missing. Exit status 2 if a notebook could not run.

    Args:
        repetition: What to execute, and how often. The notebooks need a parameter first_seed.
        first: The first seed.
        out: Folder in which each execution and its runs are kept.
        expected: The file of gates for notebooks that are not the suite's. Default: expected.toml
            beside them.
        write: Write the measurement into the file of gates, where you review it as a diff.
    """
    from vqlib.suite import calibration
    from vqlib.training.files import write_text

    suite, gates = repetition.lineup(expected)
    found = calibration.measure(
        suite, out, repetition.kinds, first, repetition.seeds, **repetition.execution()
    )
    before = gates.read_text(encoding="utf-8")
    after = found.written(before)
    print(found.text())
    for outcome in found.failed:
        print(f"FAILED {outcome}", file=sys.stderr)
    print(f"\n{calibration.difference(before, after, gates.name) or 'nothing changes'}")
    if write:
        write_text(gates, after)
    print(f"\n{gates}{'' if write else ' is as it was; --write changes it'}")
    return 2 if found.failed else 0


def trust(
    repetition: Repeated = REPEATED,
    first: int = 200,
    fault_seeds: int = 1,
    faults: tuple[str, ...] = (),
    out: Path = Path("build/calibrate"),
    write: bool = False,
) -> int:
    """Measure how often the suite's gates are red without a fault, and how often with one.

    The same command again does only what is missing. Exit status 1 if there is a false alarm or a
    fault that turns no gate red, 2 if a notebook could not run.

    Args:
        repetition: What to execute, and how often.
        first: The first seed; the seeds must not be those that the bands were calibrated on.
        fault_seeds: How many times each fault is tried on each kind of machine.
        faults: Only these. Default: all that the notebooks have parameters for.
        out: Folder in which each execution and its runs are kept.
        write: Write the result to trust.toml beside the gates; the report shows it.
    """
    from vqlib.lessons import planting
    from vqlib.suite import detection, repeats
    from vqlib.suite import trust as kept
    from vqlib.training.files import write_text

    suite, gates = repetition.lineup()
    planted = planting.chosen(faults)
    measured = detection.measure(
        suite,
        gates,
        out,
        kinds=repetition.kinds,
        first=first,
        times=repetition.seeds,
        faults=planted if faults else repeats.plantable(suite, planted),
        fault_times=fault_seeds,
        command=" ".join(["vqlib", *sys.argv[1:]]),
        **repetition.execution(),
    )
    print(measured.text())
    if write:
        write_text(gates.with_name(kept.FILE), measured.written())
        print(f"\n{gates.with_name(kept.FILE)}")
    return 2 if measured.failed else int(bool(measured.alarms or measured.missed))


def diff(
    before: Annotated[Path, tyro.conf.Positional], after: Annotated[Path, tyro.conf.Positional]
) -> int:
    """Say what changed from one report to another, in verdicts and in numbers.

    Exit status 1 if a gate or a notebook that passed no longer does, 2 if a report cannot be read.

    Args:
        before: The folder of a report, the folder that check or run wrote it into, or its
            results.json.
        after: The same, of the later report.
    """
    from vqlib.suite import difference

    found = difference.between(before, after)
    print(found)
    return int(found.worse)


def lessons(student: Path | None = None, instructor: Path | None = None) -> int:
    """Write the notebooks for a class: the student's without solutions, the instructor's with.

    Overwrites only notebooks that this command wrote and that nobody has edited since.

    Args:
        student: Folder for the notebooks without solutions.
        instructor: Folder for the notebooks with each solution in place of its stub.
    """
    from vqlib import suite
    from vqlib.suite import editions

    places = {"student": student, "instructor": instructor}
    if not any(places.values()):
        raise SettingsError("give a folder: --student DIR, --instructor DIR, or both")
    for kind, folder in places.items():
        if folder is not None:
            written = editions.write(suite.names().values(), kind, folder)
            print(f"{len(written)} notebooks for the {kind}: {folder}")
    return 0


def _bound(pairs: Sequence[str]) -> dict[str, object]:
    """{name: value} of "name=value", the value as in a profile; text needs no quotes."""
    split = split_pairs(pairs, "--set: expected NAME=VALUE")
    return {name: _value(text) for name, text in split.items()}


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _print_failures(results: Sequence) -> None:
    from vqlib.suite import tables

    text = tables.failures_text(results)
    if text:
        print(text, file=sys.stderr)


def _close(out: Path, status: int) -> int:
    """The report's path is the last line, where a person and a script look for it."""
    print(f"\n{out / 'report' / 'index.html'}")
    return status
