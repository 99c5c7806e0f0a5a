"""The notebooks' larger tables, and what may be said about an error from its ratios."""

import types

import numpy as np
import pandas as pd
import pytest

from vqlib.lessons import guide, tables


def history(train, val):
    """Two training steps and a validation, with these utilizations."""
    return pd.DataFrame(
        {
            "step": [1, 2, 2],
            "split": ["train", "train", "val"],
            "utilization": [*train, val],
            "perplexity": [10.0, 20.0, 30.0],
            "top_code_ratio": [1.0, 2.0, 3.0],
            "recon_loss": [0.3, 0.2, 0.1],
            "encoder_similarity": [0.5, 0.6, 0.7],
        }
    )


@pytest.fixture
def table():
    arms = {"baseline": [((0.9, 0.4), 0.1), ((0.9, 0.5), 0.3)], "reset": [((0.9, 0.8), 0.9)] * 2}
    watches = {
        arm: [types.SimpleNamespace(history=history(*seed)) for seed in seeds]
        for arm, seeds in arms.items()
    }
    return tables.watched_table(watches)


def test_the_end_is_the_last_validation_with_gap_and_wobble(table):
    ends = tables.at_the_end(table)
    assert ends.index.tolist() == [("baseline", 0), ("baseline", 1), ("reset", 0), ("reset", 1)]
    assert ends["utilization"].tolist() == [0.1, 0.3, 0.9, 0.9]
    np.testing.assert_allclose(ends["gap"], [30, 20, -10, -10])
    np.testing.assert_allclose(ends.loc[("reset", 0), "wobble"], 100 * np.std([0.9, 0.8], ddof=1))


def test_arms_stand_beside_what_the_guide_says(table):
    epoch = {"baseline": 0.2, "reset": 0.6}
    found = tables.before_after(tables.at_the_end(table), ["baseline", "reset"], epoch)
    assert found.loc["validation utilization"].tolist() == ["20.0 %", "90.0 %", "11.7 %", "> 60%"]
    assert found.loc["train-validation gap (points)", "baseline"] == "+25.0"
    assert found.loc[f"validation utilization at step {guide.EPOCH_STEPS}", "reset"] == "60.0 %"


def test_error_ratios_pair_the_arms_by_seed():
    rows = [("reset", 1, 3.0), ("baseline", 0, 2.0), ("reset", 0, 1.0), ("baseline", 1, 4.0)]
    found = tables.error_ratios(pd.DataFrame(rows, columns=["arm", "seed", "recon_loss"]))
    assert found.sort_index().to_dict() == {0: 0.5, 1: 0.75}


def test_an_arm_beside_itself_stands_once(table):
    found = tables.before_after(tables.at_the_end(table), ["reset", "reset"], {"reset": 0.6})
    assert list(found.columns) == ["reset", "guide, before", "guide expects after"]


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ([0.90, 0.91, 0.92, 0.90, 0.91], "lower: the whole interval lies below 1"),
        ([1.10, 1.11, 1.12, 1.10, 1.11], "higher: the whole interval lies above 1"),
        ([1.02, 1.05, 1.03, 1.03, 0.94], "undecided: the interval contains 1"),
        ([0.80], "undecided: one seed gives no interval"),
    ],
)
def test_an_error_is_said_to_be_no_lower_than_its_interval_shows(ratios, said):
    text = tables.error_verdict(ratios)
    assert said in text and f"rests on {len(ratios)} seed(s)" in text
