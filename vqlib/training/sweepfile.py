"""The file of ``vqlib sweep``: which arms, which seeds; and the folder that a sweep writes to.

::

    seeds = 5                    # 0 to 4, or a list: [3, 7, 11]
    reference = "baseline, decay 0.9, beta 0.25"  # what the others are compared with; else the
                                                  # first arm

    [base]                       # what all arms have in common; names as in `vqlib train --help`
    dataset = "digits"
    steps = 200

    [arms.baseline]              # what each arm changes
    dead_code_threshold = 0.0
    [arms.reset]
    dead_code_threshold = 1.0

    [grid]                       # every arm with every combination of these
    decay = [0.9, 0.75]
    beta = [0.25, 0.1]

Arms or the grid can be left out. With both, as here, there are 8 arms: "baseline, decay 0.9,
beta 0.25" and so on. ``threads`` is 1 unless the file says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from vqlib.quantization.names import near
from vqlib.quantization.ranges import SettingsError, hints
from vqlib.training import locks
from vqlib.training.config import TrainConfig
from vqlib.training.files import clear, read_json, write_text

KEYS = ("seeds", "reference", "base", "arms", "grid")
SETTINGS = [name for name in hints(TrainConfig) if name != "seed"]
RECORD = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """What a file asks for. ``reference``: the arm that the others are compared with."""

    arms: dict[str, TrainConfig]
    seeds: list[int]
    reference: str

    @property
    def runs(self) -> int:
        return len(self.arms) * len(self.seeds)


class SweepProblems(SettingsError):
    """A file that cannot be swept. ``problems`` holds one sentence for each reason."""

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


def plan(tables: Mapping[str, Any]) -> Sweep:
    """The sweep that a file's tables ask for. Raises SweepProblems, which lists every problem."""
    problems = [f"unknown key `{name}`{near(name, KEYS)}" for name in tables if name not in KEYS]
    base, arms, grid = (_table(tables, name, problems) for name in ("base", "arms", "grid"))
    changes = {name: _table(arms, name, problems, "arms.") for name in arms}
    for where, names in {"base": base, "grid": grid}.items():
        problems += _unknown(where, names)
    for name, own in changes.items():
        problems += _unknown(f"arms.{name}", own)
        problems += [f"`{n}` is in [arms.{name}] and in [grid]" for n in own if n in grid]
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            problems.append(f"[grid] `{name}`: expected a list of values, got {values!r}")
        elif len(set(map(repr, values))) < len(values):
            problems.append(f"[grid] `{name}`: {values!r} holds a value twice")
    if not (changes or grid):
        problems.append("no arms: expected [arms.NAME] tables, a [grid], or both")
    seeds = _seeds(tables.get("seeds", 5), problems)
    if problems:  # what follows would only repeat them
        raise SweepProblems(problems)
    configs = {}
    for name, own in _crossed(changes, grid):
        try:
            configs[name] = _config(base | own)
        except ValueError as error:
            problems.append(f"arm `{name}`: {error}")
    reference = tables.get("reference", next(iter(configs), ""))
    if not problems and reference not in configs:
        problems.append(f"reference: there is no arm `{reference}`{near(str(reference), configs)}")
    if problems:
        raise SweepProblems(problems)
    return Sweep(configs, seeds, reference)


@contextmanager
def claimed(folder: Path, sweep: Sweep) -> Iterator[None]:
    """Hold ``folder`` for this sweep, which is the first in it or the very same as before.

    Raises FolderInUse if another process sweeps in it now; FileExistsError, and writes nothing,
    if it holds anything else.
    """
    record = {
        "arms": {name: config.to_dict() for name, config in sweep.arms.items()},
        "seeds": sweep.seeds,
        "reference": sweep.reference,
    }
    with locks.checked(folder, lambda: _check(folder, record)):
        clear(folder)
        write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
        yield


def _check(folder: Path, record: dict) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; choose another --out")
    if (folder / RECORD).is_file():
        try:
            same = read_json(folder / RECORD) == record
        except ValueError:
            same = False
        if not same:
            raise FileExistsError(
                f"{folder} holds another sweep and is not overwritten; choose another --out. "
                "Runs that both have in common are not trained again"
            )
    elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and is not overwritten; choose another --out")


def _table(tables: Mapping, name: str, problems: list[str], prefix: str = "") -> dict:
    value = tables.get(name, {})
    if isinstance(value, dict):
        return value
    problems.append(f"`{prefix}{name}`: expected a table, got {value!r}")
    return {}


def _unknown(where: str, names: Mapping) -> Iterator[str]:
    for name in names:
        if name == "seed":
            yield f"[{where}] `seed`: a sweep's seeds are given by `seeds`, above all tables"
        elif name not in SETTINGS:
            yield f"[{where}] there is no setting `{name}`{near(name, SETTINGS)}"


def _seeds(given: Any, problems: list[str]) -> list[int]:
    seeds = list(range(given)) if type(given) is int else given
    right = isinstance(seeds, list) and seeds and all(type(s) is int and s >= 0 for s in seeds)
    if not right or len(set(seeds)) < len(seeds):
        problems.append(f"seeds: expected a number of seeds or a list of seeds, got {given!r}")
        return []
    return seeds


def _crossed(arms: Mapping[str, dict], grid: Mapping[str, list]) -> Iterator[tuple[str, dict]]:
    """(name, changes) of each arm with each combination of the grid."""
    for name, own in (arms or {"": {}}).items():
        for values in product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            words = [name, *(f"{n} {value}" for n, value in chosen.items())]
            yield ", ".join(filter(None, words)), own | chosen


def _config(settings: Mapping[str, Any]) -> TrainConfig:
    return TrainConfig(**({"threads": 1} | settings))
