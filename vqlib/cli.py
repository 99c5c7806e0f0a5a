"""The commands, ``vqlib NAME``: parsing and printing, nothing else.

Exit status: 0 all well, 1 a gate fails or a training diverges, 2 something could not run,
130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import tomllib
import traceback
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated

import tyro

from vqlib import extras
from vqlib.quantization.names import printable
from vqlib.quantization.ranges import Range, SettingsError, number, whole
from vqlib.training.config import TrainConfig

ABOUT = "Watch a VQ codebook collapse, find out why, and bring it back."

app = tyro.extras.SubcommandApp()

Notebooks = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="[NOTEBOOK ...]", help_behavior_hint=""),
]
Bound = tyro.conf.UseAppendAction[tuple[str, ...]]
Settings = Annotated[TrainConfig, tyro.conf.arg(name="")]  # each field is a flag of its own
DEFAULTS = TrainConfig()


@dataclass(frozen=True)
class Execution:
    """What `run` and `check` have in common."""

    notebooks: Notebooks = ()
    """Which notebooks: 01, a name or a path. Default: all."""
    profile: str | None = None
    """How much each notebook computes: quick, full or trial. Default: full."""
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


@app.command
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


@app.command
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


@app.command
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


@app.command
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
    from vqlib.training.checkpoints import write_text

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


@app.command
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
    from vqlib.training.checkpoints import write_text

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


@app.command
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


@app.command
def train(
    settings: Settings = DEFAULTS,
    out_dir: Path | None = None,
    resume: bool = False,
    progress: bool = True,
    verbose: bool = False,
    rank_timeout: float = 600.0,
) -> int:
    """Train a VQ-VAE and see how much of its codebook it uses.

    Exit status 1 if the loss stops being finite, 2 if the settings or the data cannot be used.
    Ctrl-C saves the run and says how to resume it. Started by torchrun, several processes train
    one model together.

    Args:
        settings: Everything that determines the run.
        out_dir: Folder for history, model and checkpoint; None: a new folder in build/runs.
        resume: Resume the run in out_dir. The result is the same as without the stop, bit for bit.
        progress: Show a progress bar.
        verbose: Print a line for each reset.
        rank_timeout: Seconds that a process waits for the others before it gives up.
    """
    from vqlib.training import parallel

    number("rank_timeout", rank_timeout, Range(0, 10**6, above=True))
    try:
        with parallel.group(settings.resolved_device(), rank_timeout), parallel.lost_told():
            return _train(settings, out_dir, resume, progress, verbose)
    except (ValueError, parallel.RankLost) as error:
        _complain(error)
        return 2


def _train(settings, out_dir: Path | None, resume: bool, progress: bool, verbose: bool) -> int:
    """The first of several processes speaks for all of what they agree on."""
    from vqlib.training import parallel, trainer

    folder = out_dir if out_dir or resume else parallel.on_first(_new_folder)
    try:
        with _told(verbose):
            done = trainer.train(settings, folder, resume=resume, progress=progress)
    except trainer.TrainingDiverged as error:
        if parallel.first():
            _complain(error)
        return 1
    except (ValueError, OSError, parallel.RankLost) as error:
        _complain(error)
        return 2
    except KeyboardInterrupt as stop:
        if parallel.first():
            print(str(stop) or _where_it_stands(folder), file=sys.stderr)
        return 130
    finally:
        if out_dir is None and folder is not None and parallel.first():
            with suppress(OSError):
                folder.rmdir()  # only if nothing was written
    if parallel.first():
        print(printable(f"{done}\n\n{folder}"))
    return 0


@app.command
def sweep(
    file: Annotated[Path, tyro.conf.Positional],
    out: Path | None = None,
    backend: str | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> int:
    """Train many arms with many seeds, and compare them.

    Prints each arm's means and its differences from the reference, paired by seed, with 95 %
    intervals. The same command again continues a sweep that was stopped or killed, and tries
    again what failed. Exit status 1 if a run failed, 2 if the file or the data cannot be used.

    Args:
        file: A TOML file with the arms; README.md has an example.
        out: Folder for table.csv, comparison.csv and comparison.png; None: build/sweeps/ and the
            file's name. One that holds another sweep is refused.
        backend: A joblib backend to run on instead of this machine's cores, such as dask. Its
            workers share the disk and have the same vqlib.
        scheduler: With --backend dask: the address of its scheduler, HOST:PORT.
        progress: Show a progress bar with the time left.
    """
    with extras.named("notebooks"):
        from vqlib.lessons import sweeps
    from vqlib.suite.errors import SuiteError, read_toml
    from vqlib.training import experiments, places, sweepfile

    try:
        asked = sweepfile.plan(read_toml(file))
    except sweepfile.SweepProblems as error:
        raise SuiteError(f"{file}: {problem}" for problem in error.problems) from None
    folder = out or Path("build/sweeps", file.stem)
    try:
        with _engine(backend, scheduler):
            experiments.check(asked.arms.values())
            with sweepfile.claimed(folder, asked):  # last: what is refused leaves no folder behind
                table = experiments.sweep(
                    asked.arms, asked.seeds, backend=backend, progress=progress
                )
                comparison = sweeps.write(table, asked.reference, folder)
    except (ValueError, OSError) as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:
        print(
            f"interrupted; what is done is kept in {places.cache_dir()}, and the same command "
            "does the rest",
            file=sys.stderr,
        )
        return 130
    if len(comparison):
        print(f"{sweeps.text(comparison)}\n\ncompared with: {asked.reference}")
    failed = table[table["problem"] != ""]
    own = experiments.differences(asked.arms)
    for (arm, problem), rows in failed.groupby(["arm", "problem"], sort=False):
        settings = ", ".join(f"{name} {value}" for name, value in own[arm].items())
        seeds = ", ".join(map(str, rows["seed"]))
        print(f"failed: {arm}, seed {seeds} ({settings}): {problem}", file=sys.stderr)
    print(f"\n{len(table) - len(failed)} of {len(table)} runs went well\n{folder}")
    return int(len(failed) > 0)


@contextmanager
def _engine(backend: str | None, scheduler: str | None):
    """Connects to dask's scheduler, if its address is given."""
    if scheduler is None:
        yield
        return
    if backend != "dask":
        raise SettingsError(f"--scheduler is dask's; expected --backend dask, got {backend!r}")
    from distributed import Client  # joblib finds it by itself

    with Client(scheduler):
        yield


@app.command
def diagnose(
    history: Annotated[Path, tyro.conf.Positional],
    codebook_size: int | None = None,
    tokens_per_step: float | None = None,
    dead_code_threshold: float | None = None,
    decay: float | None = None,
    reset_interval: float | None = None,
    dim: float | None = None,
    map: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    json: bool = False,
    html: Path | None = None,
) -> int:
    """Say what is wrong with a codebook, why, and what to do, from its history.

    Exit status 0 if nothing is critical, 1 if something is, 2 if the file cannot be used.

    Args:
        history: A log (CSV, JSON, JSON lines, Parquet, what a training printed; gzip of each) or
            the folder of a run (ours, Hugging Face, Lightning, TensorBoard, W&B, MLflow).
        codebook_size: K, the number of codes.
        tokens_per_step: N, the number of tokens quantized in a training step.
        dead_code_threshold: A code with fewer hits a step than this is reset; 0: no reset.
        decay: Decay of the moving average of counts.
        reset_interval: Steps between resets.
        dim: D, the dimension of a code.
        map: QUANTITY=COLUMN for a column whose name is not understood, for example
            --map used_codes=n_hit. Can be given several times.
        json: Print JSON instead of text.
        html: Also write the answers to this HTML file. An existing file is not overwritten.
    """
    from vqlib import diagnosis
    from vqlib.diagnosis import findings

    try:
        found = diagnosis.diagnose(
            history,
            codebook_size=codebook_size,
            tokens_per_step=tokens_per_step,
            dead_code_threshold=dead_code_threshold,
            decay=decay,
            reset_interval=reset_interval,
            dim=dim,
            map=_mapped(map),
        )
        if html is not None:
            with open(html, "x", encoding="utf-8") as file:
                file.write(f"{findings.page(found)}\n")
    except (diagnosis.HistoryError, OSError) as error:
        _complain(error)
        return 2
    print(found.to_json() if json else found)
    return int(found.verdict == "critical")


def _mapped(pairs: Sequence[str]) -> dict[str, str]:
    """{quantity: column} of "quantity=column". Raises SettingsError for anything else."""
    return _split(pairs, "--map: expected QUANTITY=COLUMN")


def _bound(pairs: Sequence[str]) -> dict[str, object]:
    """{name: value} of "name=value", the value as in a profile; text needs no quotes."""
    split = _split(pairs, "--set: expected NAME=VALUE")
    return {name: _value(text) for name, text in split.items()}


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _split(pairs: Sequence[str], expected: str) -> dict[str, str]:
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise SettingsError(f"{expected}, got {wrong[0]!r}")
    return dict(pair.split("=", 1) for pair in pairs)


@app.command
def field(out: Path | None = None, packages: tuple[str, ...] = (), ranks: bool = True) -> int:
    """Audit the quantizer layers of known packages, as far as these are installed.

    Exit status 0 however the layers do.

    Args:
        out: Also write the table to this CSV file. An existing file is not overwritten.
        packages: Only the layers of these. Default: all that are installed.
        ranks: Also run each layer in two processes; takes most of the time.
    """
    from vqlib.diagnosis import field as fields

    unknown = set(packages) - {layer.package for layer in fields.LAYERS}
    if unknown:
        known = ", ".join(dict.fromkeys(layer.package for layer in fields.LAYERS))
        raise SettingsError(f"packages: got {', '.join(sorted(unknown))}; expected some of {known}")
    if out is not None and out.exists():
        raise SettingsError(f"out: {out} exists; expected the name of a new file")
    table = fields.audit_field(
        [layer for layer in fields.LAYERS if not packages or layer.package in packages],
        ranks=ranks,
        command=fields.command_line(),
        told=lambda line: print(f"audits {line}", file=sys.stderr),
    )
    if out is not None:
        fields.write(table, out)
    print(fields.text(table) or "none of the packages is installed")
    print(f"\n{time.strftime('%Y-%m-%d')}, {fields.environment()}")
    for package, line in fields.missing().items():
        print(f"not installed: {package} ({line})")
    return 0


@app.command
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


@app.command
def selftest(runs: int = 20) -> int:
    """Test the diagnosis on healthy runs and on planted faults, and print how often it is right.

    Exit status 1 if a healthy run gets a critical finding, or if a fault is found in fewer than
    95 % of its runs.

    Args:
        runs: Number of runs of each planted fault. They are kept in the cache.
    """
    from vqlib.diagnosis import selftest

    found = selftest.examinations(whole("runs", runs), progress=True)
    table = selftest.confusion(found)
    print(selftest.confusion_text(table))
    problems = selftest.failures(table)
    print("\n".join(["", *problems] if problems else ["", "the diagnosis passes"]))
    return int(bool(problems))


def _new_folder() -> Path:
    """A folder in build/runs that no other run has, however many start at once."""
    stamp = time.strftime("%Y-%m-%d_%H%M%S")
    for n in count(1):
        folder = Path("build/runs", stamp if n == 1 else f"{stamp}_{n}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


@contextmanager
def _told(verbose: bool):
    """Shows the package's log lines above the progress bar, if wanted."""
    if not verbose:
        yield
        return
    from tqdm.contrib.logging import logging_redirect_tqdm

    logger = logging.getLogger("vqlib")
    level, handler = logger.level, logging.StreamHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with logging_redirect_tqdm([logger]):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _complain(error: object) -> None:
    """One line; no control character of a file's name reaches the terminal."""
    print(f"error: {printable(str(error))}", file=sys.stderr)


def _out_of_memory(error: Exception) -> bool:
    """torch has no error of its own for it on a CPU."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def _where_it_stands(folder: Path | None) -> str:
    if folder is None or not (folder / "checkpoint.safetensors").is_file():
        return "interrupted before anything was saved"
    return (
        f"interrupted; the last checkpoint is in {folder}. To resume, give the same settings and "
        f"--out_dir {folder} --resume"
    )


def _print_failures(results: Sequence) -> None:
    from vqlib.suite import tables

    text = tables.failures_text(results)
    if text:
        print(text, file=sys.stderr)


def _close(out: Path, status: int) -> int:
    """The report's path is the last line, where a person and a script look for it."""
    print(f"\n{out / 'report' / 'index.html'}")
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. Raises SystemExit on --help and on bad flags."""
    from vqlib.suite.errors import SuiteError

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a table's rule must not break an old terminal
    try:
        with extras.named():
            status = app.cli(prog="vqlib", description=ABOUT, args=argv)
        sys.stdout.flush()
    except SuiteError as error:
        for problem in error.problems:
            _complain(problem)
        return 2
    except BrokenPipeError:  # whoever read the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (SettingsError, extras.NotInstalled, OSError) as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted: the kernels are stopped, and earlier results are untouched",
            file=sys.stderr,
        )
        return 130
    except Exception as error:  # Python's own exit status 1 would read as a failed gate
        if _out_of_memory(error):
            _complain("out of memory; a smaller batch, codebook or model needs less")
        else:
            traceback.print_exc()
        return 2
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main())
