"""How flat the use of a codebook can be on given tokens: what bounds the guide's optimal level."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from vqlib.lessons import percent
from vqlib.lessons.effects import bootstrap, bracketed
from vqlib.lessons.guide import LEVELS
from vqlib.quantization.quantizer import assigned_sums, where_directed
from vqlib.quantization.search import nearest
from vqlib.training.config import STRIDE

FIELD = 18  # pixels that a token of the suite's encoder sees, across and down
BEFORE = 7  # of them to the left of its own first pixel, and above


def largest_equal_group(pictures: Tensor) -> int:
    """Tokens that no encoder of this receptive field can tell apart: the largest such group.

    ``pictures``: (B, C, H, W). What lies outside a picture counts as a value of its own, as the
    encoder's zeros there do.
    """
    after = FIELD - BEFORE - STRIDE
    padded = F.pad(pictures, (BEFORE, after, BEFORE, after), value=-1.0)
    fields = padded.unfold(2, FIELD, STRIDE).unfold(3, FIELD, STRIDE)
    flat = fields.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    return int(flat.unique(dim=0, return_counts=True)[1].max())


def split_evenly(x: Tensor, codebook: Tensor, *, rounds: int = 60, seed: int = 0) -> Tensor:
    """Codes (K, D) after ``rounds`` of splitting what takes most, on tokens that hold still.

    In a round the codes that take more than 1.5 shares each give a token to one of the codes
    that take least, if that takes less than half a share; then every code becomes its mean.
    """
    generator = torch.Generator().manual_seed(seed)
    codebook = codebook.clone()
    for _ in range(rounds):
        indices = nearest(x, codebook)
        hits = torch.bincount(indices, minlength=len(codebook)).float()
        order = hits.argsort(descending=True)
        share = len(x) / len(codebook)
        pairs = min(int((hits > 1.5 * share).sum()), int((hits < 0.5 * share).sum()))
        for over, under in zip(order[:pairs], order.flip(0)[:pairs], strict=True):
            own = (indices == over).nonzero().flatten()
            codebook[under] = x[own[torch.randint(len(own), (1,), generator=generator)]]
        sums = assigned_sums(x, nearest(x, codebook), len(codebook))[1]
        codebook = where_directed(sums, F.normalize(sums, dim=-1), codebook)
    return codebook


def even_bias(x: Tensor, codebook: Tensor, *, iterations: int = 12) -> Tensor:
    """Biases (K,) under which the codes take tokens about equally often: a power diagram's.

    The potentials of optimal transport from tokens to codes, by Sinkhorn's algorithm at falling
    temperature (Peyré and Cuturi 2019, "Computational optimal transport", section 4).
    """
    cosines = x @ codebook.T
    bias = codebook.new_zeros(len(codebook))
    for temperature in torch.logspace(-1.5, -4.5, 13).tolist():
        for _ in range(iterations):
            scaled = (cosines + bias) / temperature
            scaled -= scaled.logsumexp(dim=1, keepdim=True)
            taken = scaled.logsumexp(dim=0)  # log of tokens a code takes
            bias -= temperature * (taken - taken.mean())
    return bias


def fits(table: pd.DataFrame) -> pd.DataFrame:
    """How even each way of fitting codes is, and how close its codes are; means over seeds.

    ``table``: of the trial "bound".
    """
    rows = {
        arm: {
            "top code in training": f"{runs['train_top_code_ratio'].mean():.2f}",
            "in validation": bracketed(bootstrap(runs["val_top_code_ratio"]), "{:.2f}"),
            "perplexity in validation": f"{runs['val_perplexity'].mean():.0f}",
            "1 - cosine in validation": f"{runs['val_cosine_error'].mean():.4f}",
        }
        for arm, runs in table.groupby("arm", sort=False)
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def judged(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Each arm against the guide's optimal level: means over seeds, and on how many it is met.

    ``table``: of the trial "flat", every seed in every arm. The top code is judged in validation.
    "No worse": neither is the error larger than the reference's on that seed.
    """
    level = LEVELS[-1]
    error = table.set_index(["arm", "seed"])["recon_loss"].unstack("arm")
    rows = {}
    for arm, runs in table.set_index("seed").groupby("arm", sort=False):
        ratio = error[arm] / error[reference]
        met = (
            (runs["train_utilization"] > level.epoch_utilization)
            & (runs["val_utilization"] > level.val_utilization)
            & (runs["top_code_ratio"] < level.max_top_code_ratio)
        )
        rows[arm] = {
            "training use": percent(runs["train_utilization"].mean()),
            "validation use": percent(runs["val_utilization"].mean()),
            "perplexity": f"{runs['perplexity'].mean():.0f}",
            "top code in training": f"{runs['train_top_code_ratio'].mean():.2f}",
            "in validation": bracketed(bootstrap(runs["top_code_ratio"]), "{:.2f}"),
            f"error over that of {reference}": bracketed(bootstrap(ratio), "{:.3f}"),
            "level met": f"{met.sum()} of {len(met)} seeds",
            "and no worse": f"{(met & (ratio <= 1)).sum()} of {len(met)}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")
