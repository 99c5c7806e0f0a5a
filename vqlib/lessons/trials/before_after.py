"""Notebook 04's comparison over 20 seeds: the guide's reset against none, on the real model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from vqlib.lessons.downstream import bag_of_codes_accuracy
from vqlib.lessons.tables import at_the_end
from vqlib.training import data, experiments
from vqlib.training.config import TrainConfig

SEEDS = range(20)
LENGTH = {"steps": 360, "cooldown_steps": 140}  # as in the notebook
COLUMNS = (
    *("utilization", "perplexity", "top_code_ratio", "recon_loss", "gap", "wobble"),
    "encoder_similarity",
)


def measure(config: Mapping, seed: int) -> dict:
    """What a run shows at its end, in validation and on the task of naming the photograph."""
    run = experiments.cached_run(replace(TrainConfig.from_dict(config), seed=seed, threads=1))
    ends = at_the_end(experiments.history_table({("", seed): run})).iloc[0]
    labels = {split: [c.picture for c in data.photo_crops(split)] for split in ("train", "val")}
    accuracy = bag_of_codes_accuracy(run.model, data.load(), labels)
    return {name: float(ends[name]) for name in COLUMNS} | {"accuracy": accuracy}


def run() -> pd.DataFrame:
    """Two arms, "baseline" and "reset", a row for each and each seed."""
    arms = {name: experiments.arm(name, **LENGTH).to_dict() for name in ("baseline", "reset")}
    key = data.load().checksum
    return experiments.sweep(arms, SEEDS, measure, key=key)[
        ["arm", "seed", *COLUMNS, "accuracy", "problem"]
    ]
