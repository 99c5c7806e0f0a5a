"""Trials: comparisons too long for a lesson, run once and kept in the repository with their date.

    python -m vqlib.lessons.trials NAME

runs the trial of that name and writes ``data/trials/NAME.csv``, over the one that is there. A
notebook shows it with `read` and `provenance` beside what it has just measured itself. A trial is
a module in this folder with a function ``run() -> DataFrame``, a row a run.
"""

from __future__ import annotations

import datetime
import platform

import pandas as pd
import torch

from vqlib.training.files import atomic
from vqlib.training.places import PARENT

FOLDER = PARENT / "data" / "trials"
DATED = ("date", "command", "python", "torch")
"""The columns that say where a row came from; the others are the trial's own."""


def read(name: str) -> pd.DataFrame:
    """The kept table of a trial, without where it came from.

    Raises FileNotFoundError if there is none: vqlib is installed without its repository, or the
    trial was never run.
    """
    return _kept(name).drop(columns=list(DATED))


def provenance(name: str) -> str:
    """One sentence: when a kept trial was run, with what, over which seeds, by which command."""
    table = _kept(name)
    first = table.iloc[0]
    seeds = sorted(set(table["seed"]))
    whole = seeds == list(range(seeds[0], seeds[-1] + 1))
    shown = f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))
    return (
        f"Kept in `data/trials/{name}.csv`: {len(table)} runs of {first['date']}, seeds {shown}, "
        f"torch {first['torch']}, Python {first['python']}, by `{first['command']}`."
    )


def write(name: str, table: pd.DataFrame) -> None:
    """Keep the table of a trial that was run today.

    Raises RuntimeError, and keeps the table that is there, if a run failed (column ``problem``).
    """
    if "problem" in table:
        failed = table[table["problem"].fillna("") != ""]
        if len(failed):
            raise RuntimeError(
                f"{len(failed)} of {len(table)} runs failed, so {name}.csv is not written; "
                f"the first: {failed.iloc[0]['arm']}: {failed.iloc[0]['problem']}"
            )
        table = table.drop(columns="problem")
    origin = {
        "date": datetime.date.today().isoformat(),
        "command": f"python -m vqlib.lessons.trials {name}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    with atomic(FOLDER / f"{name}.csv") as temporary:
        table.assign(**origin)[[*origin, *table.columns]].to_csv(temporary, index=False)


def _kept(name: str) -> pd.DataFrame:
    file = FOLDER / f"{name}.csv"
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no kept trial at {file}; `python -m vqlib.lessons.trials {name}` makes it"
        )
    return pd.read_csv(file)
