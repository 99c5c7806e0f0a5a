"""The arms change what they say; what is read from their runs is what the traces hold."""

from dataclasses import replace

import pytest
import torch

from tests.training.tiny_training import tiny
from vqlib import train
from vqlib.lessons import claims
from vqlib.lessons.claims import (
    ARMS,
    BEDS,
    HYPOTHESES,
    LEADERS_SHARE,
    configs,
    leaders_gain,
    swap_outcome,
)
from vqlib.quantization.interventions import INTERVENTIONS, SWAP_AT
from vqlib.training.runs import Run


def traced(counts, cluster_size=None):
    steps = torch.arange(1, len(counts) + 1)
    trace = {"steps": steps, "counts": counts, "cluster_size": cluster_size}
    return Run(tiny(), None, {}, None, trace)


@pytest.mark.parametrize("bed", BEDS)
def test_an_arm_changes_one_thing(bed):
    base = BEDS[bed].to_dict()
    for name, config in configs(bed).items():
        changed = {k for k, v in config.to_dict().items() if v != base[k]}
        assert len(changed) == (name != "baseline"), name


def test_the_beds_share_the_guides_setting():
    for bed in BEDS.values():
        assert (bed.decay, bed.beta, bed.kmeans_init, bed.dead_code_threshold) == (
            0.9,
            0.25,
            True,
            0.0,
        )
        tokens = bed.batch_size * (bed.image_size // 4) ** 2
        assert tokens / bed.codebook_size == 12.25
        assert bed.steps > SWAP_AT


def test_every_intervention_is_some_arm_and_every_arm_is_in_a_hypothesis():
    assert {a.changes["variant"] for a in ARMS.values() if "variant" in a.changes} == set(
        INTERVENTIONS
    )
    tried = {name for h in HYPOTHESES.values() for name in h.arms}
    assert tried == set(ARMS) - {"baseline"} | {LEADERS_SHARE}


def test_frozen_later_means_after_a_share_of_the_steps():
    frozen = {bed: configs(bed)["frozen at 1/4"].freeze_encoder_at for bed in BEDS}
    assert frozen == {bed: BEDS[bed].steps // 4 for bed in BEDS}


def test_another_arm_can_stand_in_and_unknown_names_are_told():
    changed = configs("small", {"frozen encoder": "beta 0"})
    assert changed["frozen encoder"] == configs("small")["beta 0"]
    assert changed["baseline"] == configs("small")["baseline"]
    for wrong, name in (({"frozen": "beta 0"}, "'frozen'"), ({"beta 0": "beta 00"}, "'beta 00'")):
        with pytest.raises(ValueError, match=name):
            configs("small", wrong)
    with pytest.raises(ValueError, match="unknown bed 'tiny'"):
        configs("tiny")


def test_leaders_gain_what_they_take_beyond_the_window_that_chose_them():
    counts = torch.zeros(30, 10, dtype=torch.int64)
    counts[:3, 4], counts[:3, 0] = 9, 1  # code 4 leads
    counts[3:6, 4], counts[3:6, 0] = 2, 8
    counts[-3:, 4], counts[-3:, 0] = 5, 5
    assert leaders_gain(traced(counts)) == pytest.approx(0.5 - 0.2)


def test_a_swap_is_read_by_number_and_by_place():
    counts = torch.ones(40, 20, dtype=torch.int64)
    sizes = torch.ones(40, 20)
    sizes[SWAP_AT - 1, [3, 5]] = torch.tensor([9.0, 8.0])  # lead at the swap
    sizes[SWAP_AT - 1, [7, 8]] = torch.tensor([0.1, 0.2])  # get their places
    sizes[-1, 0] = 100.0  # later counts do not matter
    counts[-4:, [3, 5, 7, 8]] = torch.tensor([2, 2, 10, 10])
    outcome = swap_outcome(traced(counts, sizes))
    assert outcome == pytest.approx({"number": 4 / 40, "place": 20 / 40})


def test_mechanisms_come_from_the_history():
    run = train(tiny(trace_every=1, dead_code_threshold=0.0), progress=False)
    row = claims.mechanisms({("baseline", 3): run}).iloc[0]
    val = run.split("val")
    assert (row["arm"], row["seed"]) == ("baseline", 3)
    assert row["drift"] == pytest.approx(run.split("train")["drift"].mean())
    assert row["lag"] == pytest.approx(val["lag"].mean()) and row["lag"] > 0
    assert row["dead_codes"] == run.config.codebook_size - val["used_codes"].iloc[-1]
    assert row["utilization"] == val["utilization"].iloc[-1]


def test_a_frozen_encoder_does_not_drift():
    run = train(replace(tiny(), freeze_encoder_at=0), progress=False)
    assert claims.mechanisms({("frozen encoder", 0): run})["drift"].item() == 0
