"""The notebooks' larger tables: which columns they show, in which form, beside what the guide says.

A table of histories has the columns of a run's history and ``arm`` and ``seed``, as of
`experiments.history_table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from vqlib.lessons import guide, percent
from vqlib.training.experiments import interval

WOBBLE_STEPS = 50


def _signed(points: float) -> str:
    return f"{points:+.1f}"


BEFORE_AFTER = {
    "validation utilization": (
        "utilization",
        percent,
        percent(guide.VAL_BEFORE),
        f"> {guide.VAL_AFTER:.0%}",
    ),
    "perplexity": ("perplexity", "{:.0f}".format, "", ""),
    "top code, times the average": ("top_code_ratio", "{:.1f}".format, "far too much", "flatter"),
    "train-validation gap (points)": (
        "gap",
        _signed,
        _signed(100 * guide.GAP_BEFORE),
        f"≤ {100 * guide.GAP_AFTER:.0f}",
    ),
    f"wobble, last {WOBBLE_STEPS} steps (points)": ("wobble", "{:.1f}".format, "", ""),
    "reconstruction error (MSE)": ("recon_loss", "{:.4f}".format, "", ""),
    "encoder similarity": ("encoder_similarity", "{:.2f}".format, "", "kept"),
}
"""{row: (column of `at_the_end`, how to print it, the guide before, the guide expects after)}."""


def watched_table(watches: Mapping[str, Sequence]) -> pd.DataFrame:
    """A table of histories from watches, ``{arm: [watch of seed 0, of seed 1, ...]}``."""
    parts = [
        watch.history.assign(arm=arm, seed=seed)
        for arm, of_arm in watches.items()
        for seed, watch in enumerate(of_arm)
    ]
    return pd.concat(parts, ignore_index=True)


def at_the_end(table: pd.DataFrame) -> pd.DataFrame:
    """The last validation of each arm and seed, indexed by both, with two columns more.

    ``gap``: utilization of the last training step minus that of the validation, in points.
    ``wobble``: standard deviation of utilization over the last training steps, in points.
    """
    keys = ["arm", "seed"]
    train, val = (table[table["split"] == split] for split in ("train", "val"))
    ends, last = (t.groupby(keys).tail(1).set_index(keys) for t in (val, train))
    wobble = train.groupby(keys)["utilization"].apply(lambda u: u.tail(WOBBLE_STEPS).std())
    gap = last["utilization"] - ends["utilization"]
    return ends.drop(columns="split").assign(gap=100 * gap, wobble=100 * wobble)


def before_after(ends: pd.DataFrame, arms: Sequence[str], at_epoch: Mapping) -> pd.DataFrame:
    """Arms, means over seeds, beside what the guide observed and what it expects, as text.

    ``ends``: of `at_the_end`. ``at_epoch``: {arm: validation utilization at the end of epoch 1}.
    """
    arms = list(dict.fromkeys(arms))  # an arm beside itself stands once
    rows = {
        label: [*(show(ends.loc[arm, column].mean()) for arm in arms), *guides]
        for label, (column, show, *guides) in BEFORE_AFTER.items()
    }
    rows[f"validation utilization at step {guide.EPOCH_STEPS}"] = [
        *(percent(at_epoch[arm]) for arm in arms),
        *BEFORE_AFTER["validation utilization"][2:],
    ]
    columns = [*arms, "guide, before", "guide expects after"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def error_ratios(table: pd.DataFrame, before: str = "baseline", after: str = "reset") -> pd.Series:
    """By seed: the reconstruction error of one arm over that of another.

    ``table``: a row a run, with columns ``arm``, ``seed`` and ``recon_loss``.
    """
    error = table.set_index(["arm", "seed"])["recon_loss"]
    return error.loc[after] / error.loc[before]


def error_verdict(ratios) -> str:
    """What an error's ratios, after over before and one a seed, allow to be said about it.

    No more than their 95 % interval shows, and on how many seeds that rests.
    """
    _, low, high = interval(ratios)
    if high < 1:
        said = "The error is lower: the whole interval lies below 1."
    elif low > 1:
        said = "The error is higher: the whole interval lies above 1."
    elif low <= 1 <= high:
        said = "Whether the error is lower or higher is undecided: the interval contains 1."
    else:
        said = "Whether the error is lower or higher is undecided: one seed gives no interval."
    return f"{said} This rests on {len(ratios)} seed(s), and other seeds may differ."
