"""vqlib.lessons.planting: one parameter plants a fault in what is trained and what is audited."""

import pytest

from tests import NOTEBOOKS
from vqlib import NormEMAQuantizer, experiments
from vqlib.lessons import planting
from vqlib.quantization.faults import FAULTS
from vqlib.quantization.ranges import SettingsError
from vqlib.suite import profiles


def test_without_a_fault_nothing_changes():
    assert experiments.arm("reset", **planting.changes(None)) == experiments.arm("reset")
    layer = planting.layer(None, codebook_size=8, dim=4)
    assert type(layer) is NormEMAQuantizer and layer.reset.threshold == 1.0


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_each_known_fault_is_trained_and_audited(fault):
    assert experiments.arm("reset", **planting.changes(fault)).variant == fault
    assert type(planting.layer(fault, codebook_size=8, dim=4)) is FAULTS[fault]


def test_the_reset_can_be_switched_off():
    assert experiments.arm("reset", **planting.changes(planting.NO_RESET)).reset() is None
    assert planting.layer(planting.NO_RESET, codebook_size=8, dim=4).reset is None


def test_each_fault_can_be_planted_in_some_notebook():
    declared = [profiles.declared(path).keys() for path in NOTEBOOKS]
    assert planting.chosen().keys() == {*FAULTS, planting.NO_RESET}
    for parameters in planting.chosen().values():
        assert any(parameters.keys() <= names for names in declared)


def test_unknown_names_are_refused():
    with pytest.raises(SettingsError, match="unknown fault 'cold-stat' - did you mean"):
        planting.chosen(["cold-stat"])
    with pytest.raises(SettingsError, match="unknown variant 'cold-stat'"):
        planting.changes("cold-stat")
