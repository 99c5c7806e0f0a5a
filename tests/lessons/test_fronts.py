"""Fronts: who is beaten by nobody, in arithmetic and in words."""

import math

import numpy as np
import pandas as pd
import pytest

from vqlib.lessons import fronts

RUNS = pd.DataFrame(
    [
        {"arm": arm, "seed": seed, "perplexity": p, "error": e, "step_cost": cost}
        | {"utilization": 0.5, "effective_dimension": 3.0, "top_code_ratio": 2.0}
        | {"accuracy": 0.5, "wobble": 1.0}
        for arm, of_seeds in {
            "even": [(90, 0.020, 1.0), (80, 0.024, 9.0), (85, 0.022, 1.2)],
            "exact": [(40, 0.010, 2.0), (40, 0.010, 2.0), (40, 0.010, 2.0)],
            "neither": [(30, 0.030, 1.0), (50, 0.030, 1.0), (95, 0.030, 1.0)],
        }.items()
        for seed, (p, e, cost) in enumerate(of_seeds)
    ]
)


def beaten(points, one):
    """By the definition, one pair after the other."""
    return any(
        all(a >= b for a, b in zip(other, one, strict=True))
        and any(a > b for a, b in zip(other, one, strict=True))
        for other in points
    )


def test_the_front_is_who_is_not_beaten():
    points = np.random.default_rng(0).integers(0, 6, (200, 2)).astype(float)
    expected = [not beaten(points, one) for one in points]
    assert fronts.on_front(*points.T).tolist() == expected
    assert 0 < sum(expected) < 200


def test_equals_do_not_beat_each_other_and_nan_is_on_no_front():
    assert fronts.on_front([1, 1, 0], [2, 2, 2]).tolist() == [True, True, False]
    assert fronts.on_front([1, math.nan, 0], [2, 9, 1]).tolist() == [True, False, False]


def test_less_is_better_where_the_measure_says_so():
    shown = fronts.summary(RUNS, {"even": 2, "exact": 1, "neither": 0})
    assert fronts.front(shown, "perplexity", "error") == ["even", "exact"]
    assert fronts.front(shown, "knobs", "error") == ["exact", "neither"]


def test_a_summary_holds_means_a_median_and_the_spread():
    shown = fronts.summary(RUNS, {"even": 2, "exact": 1, "neither": 0})
    assert shown.loc["even", "perplexity"] == 85
    assert shown.loc["even", "step_cost"] == 1.2
    assert shown.loc["even", "spread"] == pytest.approx(np.std([20, 24, 22], ddof=1) / 22)
    assert shown.loc["exact", "knobs"] == 1
    text = fronts.shown_as_text(shown)
    assert text.loc["even", "utilization"] == "50.0%" and text.loc["exact", "error"] == "0.0100"
    assert len(text.columns) == len(fronts.MEASURES)


def test_on_single_seeds_an_arm_can_be_on_the_front_that_is_not_by_the_means():
    times = fronts.times_on_front(RUNS, "perplexity", "error")
    assert times.to_dict() == {"even": 3, "exact": 3, "neither": 1}
