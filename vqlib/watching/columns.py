"""A history is one tidy table, a row per (step, split). What each of its columns means."""

from __future__ import annotations

from typing import NamedTuple

DRIFT_EVERY = 5  # steps between two looks at the probe
SAMPLED_OUTPUTS = 100  # encoder outputs whose similarity is measured, the guide's number
LOOK_EVERY = 10  # steps between looks at what is dear to measure, in the first
LOOK_OFTEN = 100  # steps; and
LOOK_RARELY = 100  # later, when little changes from one to the next
SAMPLE_RARELY = 5  # then, steps between samples of the inputs of a layer that is watched
NOW_AND_THEN = f"every {LOOK_EVERY} steps, and from step {LOOK_OFTEN} every {LOOK_RARELY}"
RANKED = 1024  # codes or outputs at most whose rank is measured: a random choice of more


class Column(NamedTuple):
    unit: str
    window: str
    meaning: str


COLUMNS = {
    "step": Column("steps", "-", "training steps done when the row was written, from 1"),
    "split": Column("-", "-", '"train" or "val"'),
    "used_codes": Column("codes", "usage", "codes chosen at least once"),
    "utilization": Column("share of K", "usage", "used_codes / K"),
    "perplexity": Column("codes", "usage", "exp of the entropy of use"),
    "top_code_ratio": Column("x average", "usage", "hits of the most used code over N/K"),
    "window_tokens": Column("tokens", "usage", "N, the tokens counted"),
    "uniform_utilization": Column(
        "share of K", "usage", "utilization that perfectly uniform use would show"
    ),
    "mature_utilization": Column(
        "share of K", "usage", "utilization without codes reset less than the grace ago"
    ),
    "resets": Column("codes", "row", "codes reset"),
    "re_resets": Column("codes", "row", "of these, codes that had been reset before"),
    "premature": Column(
        "codes",
        "row",
        "of these, codes reset less than the grace ago: a refilled count cannot fall so soon",
    ),
    "survived": Column(
        "share",
        "row",
        "of resets whose verdict fell due: hit, and not reset again, within the survival horizon",
    ),
    "encoder_similarity": Column(
        "cosine",
        "step",
        "average over pairs of 100 random encoder outputs (val: over the whole set)",
    ),
    "encoder_std": Column("-", "step", "standard deviation of an encoder feature, averaged"),
    "drift": Column(
        "degrees a step",
        f"{DRIFT_EVERY} steps",
        "turn of the encoder's outputs on a fixed "
        "probe since the last look, over the steps between",
    ),
    "duplicates": Column("codes", "val", "codes equal to one before them (cosine above 0.999999)"),
    "longest_code": Column("x usual", "val", "longest code's norm over the median of used codes'"),
    "eval_change": Column(
        "-", "val", "largest change of a count or a codebook entry by the validation itself"
    ),
    "lag": Column(
        "degrees", "val", "angle between a used code and the mean of the outputs now assigned to it"
    ),
    "dead_distance": Column(
        "degrees", "val", "angle from a code that is not used to the nearest encoder output"
    ),
    "recon_loss": Column("MSE", "step", "mean squared error of pictures in [0, 1]"),
    "commit_loss": Column("-", "step", "the quantizer's loss, beta in it"),
    "cosine_error": Column("-", "step", "1 - cosine between encoder output and its code"),
    "lr": Column("-", "step", "learning rate"),
    # columns are added here, at the end: a checkpoint of an older version holds the first ones
    "encoder_rank": Column(
        "dimensions",
        "step",
        "effective rank of 100 random encoder outputs about their mean (of their directions, if "
        f"the codes have unit length); {NOW_AND_THEN} (val: of at most {RANKED})",
    ),
    "code_rank": Column(
        "dimensions",
        "val",
        "effective rank of the codes in use about their mean, each counted once (of at most "
        f"{RANKED})",
    ),
    "commit_gradient_ratio": Column(
        "ratio",
        "step",
        "norm of the gradient that the quantizer's loss sends to its input, with its weight in the "
        f"total, over that of the gradient that arrives through its output; {NOW_AND_THEN}",
    ),
}
"""What each column of `Run.history` means. Windows: *usage* is the last ``usage_window``
steps for split "train" and the whole validation set for "val"; *row* is the steps since
the train row before; *step* is this step's batch (val: the whole validation set); *val* is
the whole validation set, in rows of split "val" alone. The effective rank is that of Roy and
Vetterli (2007), `vqlib.usage.effective_rank`."""


def looks(step: int, every: int) -> bool:
    """Whether step ``step``, of rows ``every`` steps apart, measures what is dear to measure."""
    return _due(step, every, LOOK_EVERY if step <= LOOK_OFTEN else LOOK_RARELY)


def samples(step: int, every: int) -> bool:
    """Whether a watch samples the layer's inputs in step ``step``, of rows ``every`` apart."""
    return looks(step, every) or _due(step, every, 1 if step <= LOOK_OFTEN else SAMPLE_RARELY)


def _due(step: int, every: int, apart: int) -> bool:
    """Whether a row is written that comes every ``apart`` steps, or as soon as one is."""
    return step % (every * -(-apart // every)) == 0
