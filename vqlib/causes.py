"""The vicious cycle on trial: each claim, the arm that would refute it, and on what it is run.

An arm is a `TrainConfig` that changes one thing against its bed's baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd
import torch

from vqlib.config import TrainConfig
from vqlib.experiments import PRESET
from vqlib.interventions import SWAP_AT, leaders
from vqlib.runs import Run
from vqlib.strict import near

SMALL = replace(PRESET, codebook_size=128, batch_size=8, steps=120, warmup_steps=100, val_every=40)
"""A quarter of the codes and of the batch, so the same N/K of 12.25, in a fifth of the time.

Calibrated on warm-up and length alone, so that the same collapse fits in: k-means starts at
100 %, and about a sixth of the codes is left in validation. Decay and beta are the guide's."""

BEDS = {"small": SMALL, "calibrated": PRESET}


@dataclass(frozen=True)
class Arm:
    """One intervention: what it changes in the config, and in words."""

    name: str
    words: str
    changes: dict = field(default_factory=dict)
    slowed: int = 0  #: freeze the encoder after this fraction (1/n) of the steps; 0: do not

    def config(self, bed: TrainConfig) -> TrainConfig:
        later = {"freeze_encoder_at": bed.steps // self.slowed} if self.slowed else {}
        return replace(bed, **self.changes, **later)


class Hypothesis(NamedTuple):
    """A claim and its trial.

    ``guide`` is the sign of the effect on utilization that the claim predicts for its
    decisive arm, the first of ``arms``: +1 the codebook keeps more codes, -1 it keeps fewer.
    """

    claim: str
    predicts: str
    guide: int
    arms: tuple[str, ...]


ARMS = {a.name: a for a in (
    Arm("baseline", "nothing is changed"),
    Arm("random counts", "every count is replaced by a random number after each step",
        {"variant": "random-counts"}),
    Arm("zeroed counts", "every count is set to 0 after each step", {"variant": "zeroed-counts"}),
    Arm("decay 0", "no memory at all", {"decay": 0.0}),
    Arm("decay 0.99", "a memory of 100 steps", {"decay": 0.99}),
    Arm("decay 0.999", "a memory of 1,000 steps", {"decay": 0.999}),
    Arm("leaders held", "the tenth of the codes with the highest counts is not moved",
        {"variant": "leaders-held"}),
    Arm("swapped places", "leaders and trailers exchange their vectors after 25 steps",
        {"variant": "swapped-places"}),
    Arm("codes never move", "no code is strengthened (decay 1)", {"decay": 1.0}),
    Arm("count-weighted", "hits do strengthen: EMA of sums over EMA of counts",
        {"variant": "count-weighted"}),
    Arm("gradient codebook", "codes descend the codebook loss instead of EMA",
        {"variant": "gradient-codebook"}),
    Arm("unused drift", "unused codes follow the mean movement of the used ones",
        {"variant": "unused-drift"}),
    Arm("unused pulled", "unused codes move to their nearest input, at EMA's rate",
        {"variant": "unused-pulled"}),
    Arm("random start", "random unit vectors instead of k-means", {"kmeans_init": False}),
    Arm("random inputs", "random inputs instead of k-means", {"variant": "random-inputs"}),
    Arm("unbalanced start", "k-means of one corner of the batch", {"variant": "unbalanced-start"}),
    Arm("frozen encoder", "the encoder does not learn", {"freeze_encoder_at": 0}),
    Arm("frozen at 1/4", "the encoder stops after a quarter of the steps", slowed=4),
    Arm("frozen at 1/2", "the encoder stops after half of the steps", slowed=2),
    Arm("slow encoder", "a tenth of the learning rate", {"learning_rate": 1e-4}),
    Arm("beta 0", "no commitment loss: nothing pulls outputs to codes", {"beta": 0.0}),
    Arm("beta 0.1", "a weaker commitment loss", {"beta": 0.1}),
    Arm("beta 1", "a stronger commitment loss", {"beta": 1.0}),
)}  # fmt: skip
"""The baseline and every intervention, by name."""
