"""How flat use can be on the outputs of encoders trained with the guide's reset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import torch

from vqlib.lessons import flatness
from vqlib.lessons.trials.before_after import LENGTH
from vqlib.lessons.trials.flat import ARMS, HELD_OUT
from vqlib.quantization import usage
from vqlib.quantization.quantizer import on_sphere
from vqlib.quantization.search import nearest
from vqlib.training import data, experiments
from vqlib.training.config import TrainConfig

FITS = {
    "the reset's codes": {"fit": "none", "on": "train"},
    "split evenly on training tokens": {"fit": "split", "on": "train"},
    "split evenly on validation tokens": {"fit": "split", "on": "val"},
    "biases set on training tokens": {"fit": "bias", "on": "train"},
    "biases set on validation tokens": {"fit": "bias", "on": "val"},
}
"""Which codes are judged, and on which tokens they were fitted. On validation's own: a bound."""
EVERY = 32  # a training picture in so many


def measure(fit: Mapping, seed: int) -> dict:
    """Use of fitted codes on the outputs of the frozen encoder of one run."""
    config = replace(TrainConfig.from_dict(fit["config"]), seed=seed, threads=1)
    model = experiments.cached_run(config).model
    pictures = data.of(*config.source)
    rows = {"train": torch.arange(0, len(pictures.train), EVERY)}
    rows["val"] = torch.arange(len(pictures.val))
    with torch.no_grad():
        x = {
            split: torch.cat(
                [
                    on_sphere(model.encode(getattr(pictures, split).batch(part))).flatten(0, -2)
                    for part in chosen.split(64)
                ]
            )
            for split, chosen in rows.items()
        }
    codebook, bias = model.quantizer.codebook, None
    if fit["fit"] == "split":
        codebook = flatness.split_evenly(x[fit["on"]], codebook, seed=seed)
    elif fit["fit"] == "bias":
        bias = flatness.even_bias(x[fit["on"]], codebook)
    found = {}
    for split, tokens in x.items():
        indices = nearest(tokens, codebook, bias)
        hits = torch.bincount(indices, minlength=len(codebook))
        found |= {
            f"{split}_utilization": usage.utilization(hits),
            f"{split}_perplexity": usage.perplexity(hits),
            f"{split}_top_code_ratio": usage.top_code_ratio(hits),
            f"{split}_cosine_error": float(1 - (tokens * codebook[indices]).sum(dim=-1).mean()),
        }
    return found


def run() -> pd.DataFrame:
    """A row for each way of fitting and each of the held-out seeds."""
    config = replace(experiments.PRESET, **ARMS["the guide's reset"], **LENGTH).to_dict()
    fits = {name: fit | {"config": config} for name, fit in FITS.items()}
    table = experiments.sweep(fits, HELD_OUT, measure, key=data.load().checksum)
    return table.drop(columns=["fit", "on"])
