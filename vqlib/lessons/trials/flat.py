"""The guide's optimal level, attacked: which idea brings the top code below twice the average?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from vqlib.lessons.tables import at_the_end
from vqlib.lessons.trials.before_after import LENGTH
from vqlib.quantization import usage
from vqlib.training import data, experiments
from vqlib.training.config import TrainConfig

HELD_OUT = range(5, 10)  # what the arms are was chosen on seeds 0 and 1
SPREAD = {"reset_relative": True, "dead_code_threshold": 0.5, "reset_interval": 5}
SPLIT = SPREAD | {"variant": "splits-most-used"}
ARMS = {
    "the guide's reset": {"dead_code_threshold": 1.0},
    "half a share, donors by use": SPREAD | {"reset_donors": "usage"},
    "half a share, balanced": SPREAD | {"reset_donors": "usage", "variant": "balanced"},
    "half a share, deferred": SPREAD | {"reset_donors": "usage", "variant": "deferred"},
    "split": SPLIT,
    "split, conscience": SPLIT | {"variant": "conscience"},
    "split, whitened": SPLIT | {"variant": "whitened"},
    "split, position": SPLIT | {"variant": "sees-position"},
    "split, position, conscience": SPLIT | {"variant": "position-conscience"},
    "split, equal place, conscience": SPLIT | {"variant": "equal-place"},
}
"""What each arm changes against `experiments.PRESET` at notebook 04's length."""


def measure(config: Mapping, seed: int) -> dict:
    """What the guide's optimal level asks for, at the end of a run."""
    run = experiments.cached_run(replace(TrainConfig.from_dict(config), seed=seed, threads=1))
    end = at_the_end(experiments.history_table({("", seed): run})).iloc[0]
    train = run.split("train")
    hits = run.trace["counts"][-50:].sum(dim=0)
    return {
        "train_utilization": float(train["mature_utilization"].tail(10).mean()),
        "val_utilization": float(end["mature_utilization"]),
        "perplexity": float(end["perplexity"]),
        "top_code_ratio": float(end["top_code_ratio"]),
        "train_top_code_ratio": usage.top_code_ratio(hits),
        "recon_loss": float(end["recon_loss"]),
        "cosine_error": float(end["cosine_error"]),
        "resets": float(train["resets"].tail(50).mean()),
    }


def run() -> pd.DataFrame:
    """A row for each arm and each held-out seed."""
    arms = {
        name: replace(experiments.PRESET, **(changes | LENGTH)).to_dict()
        for name, changes in ARMS.items()
    }
    table = experiments.sweep(arms, HELD_OUT, measure, key=data.load().checksum)
    return table.drop(columns=list(experiments.differences(arms)["split"]))
