"""Commands that train: one run, or many arms with many seeds."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Annotated

import tyro

from vqlib import extras
from vqlib.cli.common import complain
from vqlib.quantization.names import printable
from vqlib.quantization.ranges import Range, SettingsError, number
from vqlib.training.config import TrainConfig

Settings = Annotated[TrainConfig, tyro.conf.arg(name="")]  # each field is a flag of its own
DEFAULTS = TrainConfig()


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
        complain(error)
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
            complain(error)
        return 1
    except (ValueError, OSError, parallel.RankLost) as error:
        complain(error)
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
        complain(error)
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


def _where_it_stands(folder: Path | None) -> str:
    if folder is None or not (folder / "checkpoint.safetensors").is_file():
        return "interrupted before anything was saved"
    return (
        f"interrupted; the last checkpoint is in {folder}. To resume, give the same settings and "
        f"--out_dir {folder} --resume"
    )
