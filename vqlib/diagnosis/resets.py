"""What a history shows of resets: how many, when they ended, and whether they were counted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vqlib.diagnosis.findings import Evidence, Finding, not_applicable, unknown
from vqlib.diagnosis.logs import Log

NO_RESET = "No reset happened in this run: it is off, or none was recorded."
FEW_ROWS = 5  # with resets, and after the last: fewer tell no end
SILENT = 2.0  # times the longest pause between resets: a longer one is an end
HELD = 0.75  # of the codes in use under resets are in use when they stop: no fall before
FELL = 0.6  # of the codes in use before
SOON_ROWS = 20  # after the last reset


def total_resets(log: Log) -> Evidence | None:
    """All resets of the training rows; None: they were not counted."""
    if not log.has("resets"):
        return None
    rows = log.rows("resets")
    return Evidence(
        "resets in all",
        int(rows["resets"].sum()),
        "codes",
        f"train, up to step {int(rows['step'].iloc[-1])}",
    )


def without_resets(name: str, log: Log, needs: str) -> Finding:
    """The answer of a rule on resets where there were none, or where `needs` is not in the data."""
    total = total_resets(log)
    if log.settings.dead_code_threshold == 0 or (total is not None and total.value == 0):
        return not_applicable(name, NO_RESET)
    return unknown(name, "Resets were not counted.", needs)


def resets_seen(log: Log) -> bool:
    """Whether a training row counts a reset."""
    return log.has("resets") and bool(log.split("train")["resets"].sum() > 0)


class Ended(NamedTuple):
    """Resets that stopped for good, and what became of the codes."""

    last: float  #: step of the last reset
    before: float  #: codes in use until then
    after: float  #: codes in use at the end
    steps: float  #: from the last reset until the use had fallen

    @property
    def sentence(self) -> str:
        return (
            f"{self.before:.0f} codes were in use as long as codes were reset. Use fell to "
            f"{self.after:.0f} within {self.steps:.0f} steps of the last reset (step "
            f"{self.last:.0f}). The reset seems to have been switched off too early."
        )


def resets_ended(log: Log) -> Ended | None:
    """Resets that stopped for good, whereupon use fell far below. None: not so, or untold.

    A reset that is on answers when codes die; so a pause far longer than any before, in which
    they do die, is its end. "Whereupon": within as many steps as it had lasted.
    """
    rows = log.split("train")
    if not (log.has("resets") and log.has("used_codes")):
        return None
    rows = rows.dropna(subset=["resets", "used_codes"])
    fired = np.flatnonzero((rows["resets"] > 0).to_numpy())
    if len(fired) < FEW_ROWS or len(rows) - 1 - fired[-1] < FEW_ROWS:
        return None
    until, after = rows.iloc[: fired[-1] + 1], rows.iloc[fired[-1] + 1 :]
    steps = rows["step"].to_numpy()
    if steps[-1] - steps[fired[-1]] < SILENT * np.diff(steps[fired]).max():
        return None
    before, now = until["used_codes"].tail(5).median(), after["used_codes"].tail(5).median()
    if now > FELL * before or before < HELD * until["used_codes"].median():
        return None
    began = after["step"][(after["used_codes"] <= FELL * before).to_numpy()].iloc[0]
    done = after["step"][(after["used_codes"] <= now).to_numpy()].iloc[0]
    final = float(until["step"].iloc[-1])
    soon = max(SOON_ROWS * float(np.median(np.diff(steps))), final - float(steps[0]))
    if began - final > soon:
        return None
    return Ended(final, float(before), float(now), float(done - final))
