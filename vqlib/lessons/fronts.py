"""Pareto fronts: which arms are beaten by no other in two measures at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd


class Measure(NamedTuple):
    """A column of a table of remedies, what it is called, how it is shown, and the better side."""

    column: str
    label: str
    form: str
    sign: int  #: +1: more is better; -1: less is


MEASURES = {
    m.column: m
    for m in (
        Measure("utilization", "utilization", "{:.1%}", +1),
        Measure("perplexity", "perplexity", "{:.1f}", +1),
        Measure("effective_dimension", "effective dimension", "{:.1f}", +1),
        Measure("top_code_ratio", "top code, x the average", "{:.1f}", -1),
        Measure("error", "error", "{:.4f}", -1),
        Measure("accuracy", "downstream accuracy", "{:.1%}", +1),
        Measure("wobble", "wobble (points)", "{:.1f}", -1),
        Measure("spread", "error's spread over seeds", "{:.1%}", -1),
        Measure("step_cost", "step, x the reset's", "{:.2f}", -1),
        Measure("knobs", "knobs", "{:.0f}", -1),
    )
}


def on_front(x, y) -> np.ndarray:
    """(n,) bool: points that no other beats; more is better in both ``x`` and ``y`` (n,).

    One point beats another if it is at least as good in both and better in one. A point with a
    NaN is on no front and beats nobody.
    """
    points = np.column_stack([x, y]).astype(float)
    as_good = (points[:, None] >= points).all(axis=-1)
    better = (points[:, None] > points).any(axis=-1)
    return ~(as_good & better).any(axis=0) & ~np.isnan(points).any(axis=-1)


def summary(table: pd.DataFrame, knobs: Mapping[str, int]) -> pd.DataFrame:
    """One row an arm: means over seeds of `MEASURES`, in the table's order of arms.

    ``spread``: standard deviation of the error over seeds, over its mean. ``step_cost``: the
    median. ``table``: of one bed, columns ``arm``, ``seed`` and those of `beds.COLUMNS`.
    """
    grouped = table.groupby("arm", sort=False)
    shown = grouped[[c for c in MEASURES if c in table]].mean()
    shown["spread"] = grouped["error"].std() / shown["error"]
    shown["step_cost"] = grouped["step_cost"].median()
    shown["knobs"] = [knobs[name] for name in shown.index]
    return shown[list(MEASURES)]


def front(shown: pd.DataFrame, x: str, y: str) -> list[str]:
    """The arms on the front of two measures; ``shown``: of `summary`, ``x`` and ``y`` columns."""
    sides = (shown[c] * MEASURES[c].sign for c in (x, y))
    return list(shown.index[on_front(*sides)])


def times_on_front(table: pd.DataFrame, x: str, y: str) -> pd.Series:
    """{arm: on how many seeds it is on the front of that seed's runs}; ``table`` of one bed."""
    fronts = [front(one.set_index("arm"), x, y) for _, one in table.groupby("seed")]
    arms = dict.fromkeys(table["arm"])
    return pd.Series({arm: sum(arm in names for names in fronts) for arm in arms})


def shown_as_text(shown: pd.DataFrame) -> pd.DataFrame:
    """A `summary` for readers: each measure in its form, under its label."""
    texts = {
        m.label: shown[m.column].map(m.form.format, na_action="ignore").fillna("–")
        for m in MEASURES.values()  # one seed has no spread
    }
    return pd.DataFrame(texts).rename_axis(None)
