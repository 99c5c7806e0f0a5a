"""Intervals that hold what they promise, pairs that share a seed, and rules at their edges."""

import math

import numpy as np
import pandas as pd
import pytest

from vqlib.lessons import effects
from vqlib.lessons.claims import ARMS, HYPOTHESES, LEADERS_SHARE

NAN = math.nan


def table(**values):
    """effects.paired's rows from {arm: (mean, low, high)}; arms not given have 0 effect."""
    names = [n for n in (*ARMS, LEADERS_SHARE) if n != "baseline"]
    rows = {n: (*values.get(n, (0.0, -1.0, 1.0)), ()) for n in names}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high", "values"])


# --- intervals ---


@pytest.mark.parametrize(("seeds", "least"), [(5, 0.91), (10, 0.93)])
def test_the_interval_is_honest_where_plain_percentiles_are_not(seeds, least):
    held = effects.coverage(seeds)
    assert least < held["expanded"] < 0.98
    assert held["plain"] < held["expanded"] - 0.02
    assert held["t"] == pytest.approx(0.95, abs=0.025)


def test_coverage_describes_the_interval_that_is_used():
    x = np.random.default_rng(7).normal(size=(500, 5))
    held = np.mean([low <= 0 <= high for _, low, high in map(effects.bootstrap, x)])
    assert held == pytest.approx(effects.coverage(5)["expanded"], abs=0.04)


def test_an_interval_surrounds_its_mean_within_the_values():
    values = [1.0, 2.0, 4.0, 9.0, 3.0, 5.0]
    mean, low, high = effects.bootstrap(values)
    assert mean == 4.0 and 1.0 <= low < 3.0 and 5.0 < high <= 9.0
    narrow = effects.bootstrap(values, confidence=0.5)
    assert low < narrow[1] < narrow[2] < high


def test_equal_values_leave_no_doubt_and_few_values_no_interval():
    assert effects.bootstrap([0.0] * 5) == (0.0, 0.0, 0.0)
    mean, low, high = effects.bootstrap([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5 and math.isnan(low) and math.isnan(high)


# --- pairs ---


def test_effects_are_paired_by_seed():
    shifts = {"a": 0.2, "baseline": 0.0}
    rows = [(arm, s, 0.1 * s + shifts[arm]) for s in (3, 0, 1, 4, 2) for arm in shifts]
    data = pd.DataFrame(rows, columns=["arm", "seed", "utilization"])
    found = effects.paired(data)
    assert list(found.index) == ["a"]
    # the seeds differ by 40 points, their pairs by none
    np.testing.assert_allclose(found.loc["a", ["mean", "low", "high"]].astype(float), 20)
    np.testing.assert_allclose(found.loc["a", "values"], [20.0] * 5)


# --- rules ---


@pytest.mark.parametrize(
    ("low", "high", "sign", "found"),
    [
        (1.0, 30.0, +1, "supported"),
        (-1.0, 30.0, +1, "undecided"),
        (-30.0, 4.9, +1, "refuted"),
        (-30.0, 5.1, +1, "undecided"),
        (-30.0, -6.0, +1, "refuted"),  # the opposite
        (-30.0, -6.0, -1, "supported"),
        (0.0, 0.0, -1, "refuted"),
        (1.0, 4.0, +1, "refuted"),  # sure, and too small to matter
        (NAN, NAN, +1, "undecided"),
    ],
)
def test_verdicts(low, high, sign, found):
    assert effects.verdict(low, high, sign) == found


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (40.0, 60.0, "drives"),
        (39.9, 60.0, "modulates"),
        (-20.0, -1.0, "modulates"),
        (-4.9, 4.9, "no effect"),
        (-4.9, 5.1, "undecided"),
        (1.0, 3.0, "no effect"),
        (NAN, NAN, "undecided"),
    ],
)
def test_roles(low, high, found):
    assert effects.role(low, high, lost=80.0) == found


def test_the_decisive_arm_gives_the_verdict_and_any_arm_a_modulation():
    data = table(
        **{
            "frozen encoder": (80, 75, 85),
            "decay 0.99": (-12, -18, -6),
            "frozen at 1/4": (3, -9, 15),
            "random start": (-15, -20, -9),
        }
    )
    judged = effects.judge(data, lost=80.0)
    assert list(judged.index) == list(HYPOTHESES)
    assert tuple(judged.loc["drift", ["verdict", "role"]]) == ("supported", "drives")
    assert tuple(judged.loc["memory", ["verdict", "role", "shown_by"]]) == (
        "refuted",
        "modulates",
        "decay 0.99",
    )
    assert judged.loc["start", "arm"] == "unbalanced start"
    assert judged.loc["start", "shown_by"] == "random start"
    assert judged.loc["counts", "role"] == "no effect"
    assert judged.loc["3-4", "role"] == "observed"
    both = table(**{"unused pulled": (30, 20, 39), "unused drift": (35, 20, 39)})
    assert effects.judge(both, lost=80.0).loc["5-6", "shown_by"] == "unused pulled"


def test_the_conclusion_follows_the_intervals():
    drives, helps, harms, none, *_ = effects.conclusion(
        data := table(
            **{"frozen encoder": (80, 75, 85), "beta 1": (9, 6, 12), "leaders held": (-9, -12, -6)}
        ),
        effects.judge(data, lost=80.0),
    )
    assert "the movement of the encoder (frozen encoder: +80.0 points [+75.0, +85.0])" in drives
    assert "the commitment loss (beta 1: +9.0 points" in helps
    assert "early leaders (leaders held: -9.0" in harms and "leaders held" not in helps
    assert "the counts' memory" in none and LEADERS_SHARE not in none
    turned = table(**{"random counts": (80, 75, 85), "frozen encoder": (0, -1, 1)})
    drives, *_, wrong, right, _ = effects.conclusion(turned, effects.judge(turned, lost=80.0))
    assert "the counts' memory" in drives and "encoder" not in drives
    assert "claim 1" in right and "claim 1" not in wrong
    mild = table(**{"decay 0": (20, 12, 28)})
    assert "it worse; it only modulates)" in effects.conclusion(mild, effects.judge(mild, 80.0))[6]


def test_one_seed_decides_nothing():
    data = table(**dict.fromkeys((*ARMS, LEADERS_SHARE), (80.0, NAN, NAN)))
    judged = effects.judge(data, lost=80.0)
    assert set(judged["verdict"]) == {"undecided"}
    assert set(judged.drop(index="3-4")["role"]) == {"undecided"}
    lines = effects.conclusion(data, judged)
    assert lines[0].endswith("none.") and "too few seeds" in lines[4]
