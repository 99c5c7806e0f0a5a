"""Comparison: the kept runs side by side, as rows, curves and sentences. It knows no widgets."""

from __future__ import annotations

import pandas as pd

from vqlib.playground.trainings import runview, settings
from vqlib.playground.trainings.worker import Curves
from vqlib.training.config import TrainConfig
from vqlib.training.history import final_values
from vqlib.training.store import Kept, RunStore

SHOWN_AT_FIRST = 6  # of the runs that were kept earlier, the newest
RESULTS = ("val_utilization", "val_perplexity", "val_recon_loss", "train_utilization")


class Comparison:
    """The runs of a store, each with a line of its own, some of them ticked to be drawn.

    Args:
        store: where they are. base: the settings against which theirs are named.

    Attributes:
        runs: as they were at the last `refresh`, oldest first. ticked: {name: drawn or not}.
    """

    def __init__(self, store: RunStore, base: TrainConfig):
        self.store, self.base = store, base
        self.runs: list[Kept] = []
        self.ticked: dict[str, bool] = {}
        self._looks: dict[str, runview.Look] = {}
        self._curves: dict[str, tuple[tuple, Curves]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read again what is kept."""
        self.runs = self.store.runs()
        for i, kept in enumerate(self.runs):
            self.look(kept.name)
            self.ticked.setdefault(kept.name, i >= len(self.runs) - SHOWN_AT_FIRST)

    def look(self, name: str) -> runview.Look:
        """A run's line: the same as long as this object lives."""
        return self._looks.setdefault(name, runview.look(len(self._looks)))

    def drawn(self, without: str = "") -> dict[str, tuple[runview.Look, Curves]]:
        """{name: (line, curves)} of the ticked runs."""
        chosen = [k for k in self.runs if self.ticked[k.name] and k.name != without]
        return {k.name: (self.look(k.name), self._curves_of(k)) for k in chosen}

    def rows(self, focus: str) -> list[dict]:
        """What the browser's table shows, newest first. ``focus``: the run shown in detail."""
        return [self._row(kept, kept.name == focus) for kept in reversed(self.runs)]

    def table(self) -> pd.DataFrame:
        """One row a run, oldest first: name, state, steps, settings and results."""
        rows = []
        for kept in self.runs:
            config = kept.config.to_dict() if kept.config else {}
            row = {name: config.get(name) for name in settings.SHORT}
            row |= {"name": kept.name, "state": kept.state, "step": kept.step, "steps": kept.steps}
            rows.append(row | self._results(kept))
        columns = dict.fromkeys(["name", "state", "step", "steps", *settings.SHORT, *RESULTS])
        return pd.DataFrame(rows, columns=list(columns))

    def sentence(self, name: str) -> str:
        """One run's settings and what came of them."""
        kept = self.store.find(name)
        if kept.config is None:
            return f"“{name}” cannot be read: {kept.problem}."
        text = f"“{name}” ({settings.description(kept.config)}): {kept.state}"
        text += f" at step {kept.step} of {kept.steps}" if kept.state != "finished" else ""
        found = self._results(kept)
        if "val_utilization" in found:
            text += (
                f"; in validation {found['val_utilization']:.0%} of the codes are in use, "
                f"perplexity {found['val_perplexity']:.1f}, error {found['val_recon_loss']:.4f}"
            )
        return text + "."

    def _row(self, kept: Kept, focus: bool) -> dict:
        style, found = self.look(kept.name), self._results(kept)
        changed = settings.difference(kept.config, self.base) if kept.config else kept.problem
        return {
            "name": kept.name,
            "state": kept.state,
            "step": kept.step,
            "steps": kept.steps,
            "color": style.color,
            "dash": list(style.dash),
            "shown": self.ticked[kept.name],
            "settings": changed or "default settings",
            "problem": kept.problem,
            "resumable": kept.resumable,
            "focus": focus,
            "results": [_number(found.get(name)) for name in RESULTS[:3]],
        }

    def _curves_of(self, kept: Kept) -> Curves:
        key = kept.state, kept.step
        if self._curves.get(kept.name, ("", None))[0] != key:
            rows = self.store.history(kept).to_dict("records")
            self._curves[kept.name] = key, Curves(rows)
        return self._curves[kept.name][1]

    def _results(self, kept: Kept) -> dict[str, float]:
        found = kept.summary or {}
        if kept.state == "interrupted":
            found = final_values(self.store.history(kept))
        return {name: found[name] for name in RESULTS if name in found}


def _number(value: float | None) -> float | None:
    """JSON knows no NaN."""
    return value if value is not None and value == value else None
