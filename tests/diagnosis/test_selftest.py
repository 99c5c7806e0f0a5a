"""The diagnosis on trial: the table it makes, and that a few runs of it come out as they should."""

import pytest

from vqlib.diagnosis import diagnose, selftest
from vqlib.diagnosis.findings import Diagnosis, fired
from vqlib.quantization.faults import EXPECTED, FAULTS
from vqlib.training import experiments


def found(*ids, severity="critical"):
    return Diagnosis.of("t", [fired(i, severity, cause="c", remedy="r") for i in ids])


MADE = {
    ("healthy", "a"): found("healthy", severity="note"),
    ("healthy", "b"): found("encoder-drift", severity="note"),
    ("cold-start", "seed 0"): found("cold-start", "reset-churn"),
    ("cold-start", "seed 1"): found("reset-churn"),
}


def test_the_table_counts_what_fired():
    table = selftest.confusion(MADE)
    assert table.loc["healthy", ["runs", "must find", "found"]].tolist() == [
        2,
        "nothing critical",
        0,
    ]
    assert table.loc["healthy", "encoder-drift"] == 0.5
    assert table.loc["cold-start", ["must find", "found"]].tolist() == ["cold-start", 0.5]
    assert table.loc["cold-start", "reset-churn"] == 1


def test_failures_name_what_is_missed_and_what_is_accused():
    missed = selftest.failures(selftest.confusion(MADE))
    assert missed == ["cold-start: cold-start found in 50% of 2"]
    accused = selftest.confusion({("healthy", "a"): found("cold-start")})
    assert selftest.failures(accused) == ["100% of 1 healthy runs have a critical finding"]
    fine = {k: d for k, d in MADE.items() if k != ("cold-start", "seed 1")}
    assert selftest.failures(selftest.confusion(fine)) == []


def test_the_table_as_text():
    text = selftest.confusion_text(selftest.confusion(MADE))
    assert "cold-start" in text and "50%" in text and "reset-churn 100%" in text


def test_there_are_enough_healthy_settings_and_every_fault_is_tried():
    settings = selftest.healthy_settings()
    assert len(set(settings.values())) == len(settings) >= 30
    assert set(selftest.BY_AUDIT) < set(FAULTS) == set(EXPECTED)
    assert all(selftest.faulty_settings(fault).variant == fault for fault in FAULTS)


@pytest.mark.parametrize("fault", ["undone-by-the-average", "unreachable-threshold", "cold-start"])
def test_a_fault_is_found_in_a_run(fault):
    run = experiments.cached_run(selftest.faulty_settings(fault))
    assert EXPECTED[fault] in diagnose(run).ids("critical")


def test_the_bed_without_a_fault_is_not_called_sick():
    assert diagnose(experiments.cached_run(selftest.BED)).ids("critical") == set()


def test_a_fault_is_found_by_audit():
    assert EXPECTED["unseeded-draws"] in selftest._audit("unseeded-draws", 1).ids("warning")
