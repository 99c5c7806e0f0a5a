"""Rules on resets."""

import numpy as np
import pandas as pd
import pytest

from tests.diagnosis.histories import SETTINGS, K, N, changed, healthy, using
from vqlib import diagnose


def answer(table, finding, **settings):
    return diagnose(table, **(SETTINGS | settings))[finding]


def test_a_threshold_above_the_share_is_told_in_numbers_that_help():
    settings = {"codebook_size": 1024, "tokens_per_step": 1600, "dead_code_threshold": 5.0}
    table = changed(healthy(), used_codes=500, utilization=500 / 1024)
    found = answer(table, "threshold-above-share", **settings)
    assert found.severity == "critical"
    assert found.cause.startswith("dead_code_threshold 5 is 3.2 x the uniform share of 1.562 hits")
    assert "at most 31%" in found.cause
    assert found.remedy.startswith("use 0.16, or relative=0.1")


@pytest.mark.parametrize(
    ("threshold", "severity"),
    [(0, "not applicable"), (1, "clear"), (8, "warning"), (13, "critical")],
)
def test_threshold_levels(threshold, severity):
    found = answer(healthy(), "threshold-above-share", dead_code_threshold=threshold)
    assert found.severity == severity


def test_an_unknown_threshold_is_asked_for():
    found = answer(healthy(), "threshold-above-share", dead_code_threshold=None)
    assert found.severity == "unknown" and found.remedy == "dead_code_threshold"


@pytest.mark.parametrize(
    ("early", "late", "severity"),
    [
        (50, 0, "clear"),
        (200, 0, "note"),
        (200, 90, "note"),
        (60, 50, "warning"),
        (300, 200, "critical"),
        (0, 150, "critical"),
        (3, 3, "clear"),
    ],
)
def test_churn_is_many_resets_that_do_not_decline(early, late, severity):
    table = healthy()
    half = table["step"] <= 100
    table["resets"] = np.where(half, early, late)
    assert answer(table, "reset-churn").severity == severity


def test_churn_counts_a_step_however_far_rows_lie_apart():
    table = changed(healthy(steps=2000, every=10, val_every=500), resets=100)  # 10 a step
    assert answer(table, "reset-churn").severity == "clear"
    assert answer(changed(table, resets=2000), "reset-churn").severity == "critical"


def test_a_reset_that_is_off_or_never_reached_is_told_apart():
    table = changed(using(40), resets=0)
    off = answer(table, "reset-never-fires", dead_code_threshold=0)
    assert off.severity == "warning" and "The reset is off" in off.cause
    slow = answer(table, "reset-never-fires", decay=0.99)  # ln(12.25) / -ln(0.99) = 249
    assert "needs 249 steps to fall below 1 at decay 0.99" in slow.cause
    assert answer(changed(healthy(), resets=0), "reset-never-fires").severity == "clear"
    assert answer(using(40), "reset-never-fires").severity == "clear"  # it fires
    assert "turn on" in off.remedy and "turn on" not in slow.remedy
    near = answer(table, "reset-never-fires", dead_code_threshold=13.0)  # above N/K
    assert "may never fall below" in near.cause and near.remedy.startswith("check with vqlib.audit")
    uncounted = changed(using(40), resets=None, re_resets=None)
    assert answer(uncounted, "reset-never-fires").severity == "unknown"


def with_resets(table, at):
    """The table with a reset at each of these steps, and no other."""
    return changed(table, resets=table["step"].isin(at).astype(int))


def test_a_code_moved_at_the_start_and_none_since_is_no_reset_that_fires():
    found = answer(with_resets(using(40), [1]), "reset-never-fires")
    assert found.severity == "warning" and "none in the last 199 steps" in found.cause
    assert answer(with_resets(healthy(), [1]), "reset-never-fires").severity == "clear"


@pytest.mark.parametrize(
    ("at", "settings", "severity"),
    [
        ([1, 30, 60], {}, "warning"),  # a pause of 140 after pauses of 30
        ([1, 80, 160], {}, "clear"),  # it may come again
        ([150], {}, "clear"),  # it was long in coming
        ([1], {"reset_interval": 120}, "clear"),
        ([1], {"decay": 0.99}, "clear"),  # counts need 249 steps to fall
        (range(1, 40), {}, "clear"),  # it fired; whether it ended early is asked elsewhere
    ],
)
def test_hardly_any_reset_is_told_from_a_slow_one(at, settings, severity):
    found = answer(with_resets(using(40), at), "reset-never-fires", **settings)
    assert found.severity == severity


@pytest.mark.parametrize(
    ("lived", "severity"), [(0.01, "critical"), (0.2, "warning"), (0.6, "clear")]
)
def test_survival(lived, severity):
    table = changed(healthy(), resets=100, survived=lived)
    assert answer(table, "reset-does-not-survive").severity == severity


def test_a_refill_to_the_threshold_is_named_as_the_cause():
    table = changed(healthy(), resets=20.0, re_resets=18.0, survived=0.01)
    known = {"dead_code_threshold": 2.0}
    told = answer(table.assign(reset_refill=2.0), "reset-does-not-survive", **known)
    assert told.severity == "critical" and "to the threshold and no further" in told.cause
    other = answer(table, "reset-does-not-survive", **known)
    assert other.severity == "critical" and "no further" not in other.cause


def test_survival_late_in_the_run_counts():
    table = changed(healthy(), resets=100)
    table["survived"] = np.where(table["step"] <= 100, 0.0, 0.9)
    assert answer(table, "reset-does-not-survive").severity == "clear"


def test_without_survival_repeated_resets_of_a_dead_codebook_tell():
    table = changed(using(40), resets=100, re_resets=99, survived=None)
    assert answer(table, "reset-does-not-survive").severity == "critical"
    assert answer(changed(table, re_resets=None), "reset-does-not-survive").severity == "unknown"


def test_a_premature_reset_is_proof_however_few_there_are():
    table = changed(healthy(), "train", premature=0.0)
    assert answer(table, "reset-does-not-survive").severity == "clear"
    table.loc[10, "premature"] = 2.0
    found = answer(table, "reset-does-not-survive")
    assert found.severity == "warning" and found.remedy.endswith("cluster_size[dead] = refill")
    table = changed(table, "train", premature=table["resets"])
    assert answer(table, "reset-does-not-survive").severity == "critical"


def test_few_resets_accuse_nobody():
    table = changed(healthy(), resets=1, survived=0.0)
    assert answer(table, "reset-does-not-survive").severity == "clear"


def test_cold_start_is_codes_in_use_and_yet_reset_in_the_first_step():
    table = changed(healthy(), utilization=None)
    table.loc[0, ["used_codes", "resets"]] = 510, 400
    found = answer(table, "cold-start")
    assert found.severity == "critical"
    assert found.evidence[-1].value == pytest.approx((510 + 400 - K) / K)
    table.loc[0, ["used_codes", "resets"]] = 100, 400  # a random start: those were not in use
    assert answer(table, "cold-start").severity == "clear"


def test_cold_start_is_open_where_it_cannot_be_seen():
    table = changed(healthy(), utilization=None)
    table.loc[0, ["used_codes", "resets"]] = 510, 400
    near = answer(table, "cold-start", dead_code_threshold=0.5 * N / K)
    assert near.severity == "unknown" and near.remedy == "vqlib.audit(quantizer)"
    assert answer(table[table["step"] > 5], "cold-start").severity == "unknown"


@pytest.mark.parametrize(("longest", "severity"), [(1.0, "clear"), (2e4, "critical")])
def test_an_explosion_anywhere_in_the_run(longest, severity):
    table = healthy()
    table.loc[table["split"] == "val", "longest_code"] = [longest, 1.0, 1.0, 1.0]
    assert answer(table, "first-step-explosion").severity == severity


def test_duplicates_weigh_as_much_as_the_harm_they_do():
    assert answer(healthy(), "duplicate-codes").severity == "clear"
    assert answer(changed(healthy(), duplicates=100), "duplicate-codes").severity == "note"
    assert answer(changed(using(120), duplicates=100), "duplicate-codes").severity == "warning"
    assert answer(changed(using(120), duplicates=20), "duplicate-codes").severity == "note"
    assert answer(changed(using(120), duplicates=390), "duplicate-codes").severity == "critical"


def test_lower_is_not_advised_where_it_would_be_higher():
    table = changed(using(300), resets=200)
    assert "lower" not in answer(table, "reset-churn", dead_code_threshold=0.01).remedy
    assert (
        "lower the threshold (now 5) to 1.2"
        in answer(table, "reset-churn", dead_code_threshold=5).remedy
    )
    assert "reset every 5" in answer(table, "reset-churn").remedy
    assert "reset every" not in answer(table, "reset-churn", reset_interval=100).remedy


def test_a_reset_that_is_not_known_to_be_on_is_not_said_to_be_off():
    found = answer(changed(using(20), resets=0), "reset-never-fires", dead_code_threshold=None)
    assert "whether one is on is not in the data" in found.cause


def test_resets_alike_in_every_row_are_no_cold_start():
    table = changed(healthy(), resets=300)  # a row an epoch, say
    assert answer(table, "cold-start").severity == "clear"


SCHEDULED = 4000  # steps


def scheduled(after: int, *, resets_after: int = 0):
    """A reset of the first `SCHEDULED` steps, and ``after`` codes of 8 in use some steps later."""
    at = np.arange(50, 2 * SCHEDULED + 1, 50)
    on = at <= SCHEDULED
    table = pd.DataFrame({"step": at, "split": "train"})
    table["used_codes"] = np.where(at <= SCHEDULED + 200, 8, after)
    return table.assign(resets=np.where(on, 2, resets_after))


def of_eight(table):
    return diagnose(table, codebook_size=8, tokens_per_step=256)


def test_a_codebook_that_falls_when_its_resets_stop():
    found = of_eight(scheduled(1))
    ended = found["resets-ended-too-early"]
    assert ended.severity == "critical" and [e.value for e in ended.evidence] == [4000, 8, 1, 250]
    assert ended.cause == found["codebook-collapse"].cause
    for answer in found.findings:
        assert "turn on" not in answer.remedy
    assert found["reset-never-fires"].severity == "not applicable"


@pytest.mark.parametrize(
    "table", [scheduled(8), scheduled(6), scheduled(1, resets_after=2)], ids=["all", "most", "on"]
)
def test_resets_that_ended_without_harm_or_did_not_end(table):
    assert of_eight(table)["resets-ended-too-early"].severity == "clear"


def test_whether_resets_ended_is_not_known_without_them():
    table = scheduled(1).drop(columns="resets")
    assert of_eight(table)["resets-ended-too-early"].severity == "unknown"
