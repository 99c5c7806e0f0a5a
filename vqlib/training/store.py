"""RunStore: the runs that a person has made, each in a folder of its own, never overwritten.

The folder's name is the run's. A lock in it says whether a process trains in it now; the system
drops the lock of a process that died, and what is left shows as interrupted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from vqlib.quantization.names import near
from vqlib.training import checkpoints, locks
from vqlib.training.config import TrainConfig
from vqlib.training.files import read_json
from vqlib.training.places import runs_dir
from vqlib.training.runs import Run, TrainingDiverged, read_config, read_history
from vqlib.training.trainer import Trainer, train
from vqlib.watching.columns import COLUMNS

LONGEST_NAME = 60  # characters
CANNOT_RESUME = frozenset({"finished", "under way", "diverged", "unreadable"})


class RunInUse(RuntimeError):
    """Another panel or kernel trains in this run's folder."""


@dataclass(frozen=True)
class Kept:
    """What the store knows of a run without reading its model.

    Attributes:
        state: "finished", "stopped", "diverged", "interrupted", "under way" or "unreadable".
        step: training steps whose result can be read. steps: those asked for; None: not known.
        summary: of a finished, stopped or diverged run; else empty.
        problem: why it diverged or cannot be read; else "".
    """

    name: str
    state: str
    config: TrainConfig | None = None
    step: int = 0
    steps: int | None = None
    summary: dict | None = None
    problem: str = ""

    @property
    def resumable(self) -> bool:
        """Whether `RunStore.train` can resume it."""
        return self.state not in CANNOT_RESUME


def check_name(name: str) -> str:
    """``name`` without spaces around it. Raises ValueError if it cannot name a folder."""
    name = name.strip()
    if not re.fullmatch(r"\w[\w ,.+=-]*", name) or len(name) > LONGEST_NAME or name[-1] == ".":
        raise ValueError(
            f"name must begin with a letter or a digit, hold only these, spaces and , . + = - _, "
            f"and at most {LONGEST_NAME} characters; got {name!r}"
        )
    return name


class RunStore:
    """The runs under one folder, which is made when the first one begins.

    Args:
        folder: where they are; None: `places.runs_dir`.
    """

    def __init__(self, folder: str | Path | None = None):
        self.folder = Path(folder) if folder is not None else runs_dir()

    def path(self, name: str) -> Path:
        """The folder of a run, whether or not there is one."""
        return self.folder / check_name(name)

    def new(self, name: str) -> str:
        """Take a free name, ``name`` itself or with a number after it, by making its folder."""
        name = check_name(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        number, free = 1, name
        while True:
            try:
                self.path(free).mkdir()
            except FileExistsError:
                number += 1
                free = f"{name[: LONGEST_NAME - 6]} {number}"
            else:
                return free

    def runs(self) -> list[Kept]:
        """All runs, in the order in which they were begun or last gone on with."""
        files = (p for p in self.folder.glob("*/config.json") if p.is_file())
        settings = {p: p.stat().st_mtime_ns for p in files}
        return [self.find(p.parent.name) for p in sorted(settings, key=lambda p: (settings[p], p))]

    def find(self, name: str) -> Kept:
        """What is known of one run. Raises ValueError if there is none of that name."""
        folder = self.folder / name
        if not (folder / "config.json").is_file():
            known = [p.parent.name for p in self.folder.glob("*/config.json")]
            raise ValueError(f"no run is called {name!r} in {self.folder}" + near(name, known))
        try:
            return self._look(name, folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Kept(name, "unreadable", problem=str(error))

    def load(self, name: str) -> Run:
        """A whole run, or an interrupted one as its last checkpoint holds it.

        Raises ValueError or FileNotFoundError if there is none, or if it cannot be read.
        """
        kept = self.find(name)
        if kept.state == "unreadable":
            raise ValueError(f"the run {name!r} in {self.folder} cannot be read: {kept.problem}")
        if kept.summary:
            return Run.load(self.folder / name)
        trainer = Trainer(kept.config)
        trainer.load_state(*checkpoints.read_tensors(self._checkpoint(name)))
        return trainer.kept()

    def history(self, kept: Kept) -> pd.DataFrame:
        """The history's rows up to the step that can be read; empty if none was written."""
        file = self.folder / kept.name / "history.csv"
        if not file.is_file():
            return pd.DataFrame(columns=list(COLUMNS))
        rows = read_history(file)
        return rows if kept.problem else rows[rows["step"] <= kept.step]

    def train(
        self,
        name: str,
        config: TrainConfig | None = None,
        callbacks: Sequence[Callable[[Trainer], None]] = (),
    ) -> Run:
        """Train in the folder of ``name``, from `new`; without ``config``, resume what is there.

        Of a training that diverged its last good state is kept, as a whole run.

        Raises:
            RunInUse: somebody trains in it now. TrainingDiverged and others: from `trainer.train`.
        """
        folder, resume = self.path(name), config is None
        try:
            config = config or read_config(folder)
            return train(config, folder, resume=resume, progress=False, callbacks=list(callbacks))
        except TrainingDiverged as error:
            summary = error.run.summary | {"problem": str(error)}
            with locks.alone(folder):
                replace(error.run, summary=summary).save(folder)
            raise
        except locks.FolderInUse as error:
            text = f"the run {name!r} is being trained in another panel or kernel"
            who = f" (process {error.holder})" if error.holder else ""
            raise RunInUse(text + who) from None
        finally:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()  # refused before it began

    def _look(self, name: str, folder: Path) -> Kept:
        config, steps = read_config(folder), None
        if locks.is_held(folder):
            return Kept(name, "under way", config, self._checkpoint_step(name), config.steps)
        if (folder / "summary.json").is_file():
            summary = read_json(folder / "summary.json")
            step, problem = int(summary["steps"]), str(summary.get("problem", ""))
            steps = config.steps or config.epochs * summary["steps_per_epoch"]
            state = "diverged" if problem else "stopped" if summary.get("stopped") else "finished"
            return Kept(name, state, config, step, steps, summary, problem)
        return Kept(name, "interrupted", config, self._checkpoint_step(name), config.steps)

    def _checkpoint(self, name: str) -> Path:
        return self.folder / name / "checkpoint.safetensors"

    def _checkpoint_step(self, name: str) -> int:
        file = self._checkpoint(name)
        return int(checkpoints.read_info(file)["step"]) if file.is_file() else 0
