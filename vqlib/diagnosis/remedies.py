"""What to do about a codebook, by the kind of layer it belongs to."""

from __future__ import annotations

from typing import NamedTuple

from vqlib.diagnosis.logs import Log

GOOD_THRESHOLD, GOOD_REFILL, GOOD_EVERY = 0.1, 1.0, 5  # relative; public practice (Mimi)
KEEP_ON = (
    "keep the reset on to the end of training; and see why the codebook needs it: the encoder's "
    "drift, its rate, the balance of the losses"
)
BALANCE = (
    "balance the losses: sum both over their features or average both, or lower the weight of the "
    "quantizer's until the reconstruction's gradient is the larger at the quantizer's input"
)
RESTART = (
    "start at k-means of the first batch; restart dead rows on inputs of the batch, and zero their "
    "optimizer state (Adam: exp_avg, exp_avg_sq) with them"
)
SPREAD = (
    "the grid is fixed and has no reset: scale or normalise the projection before it, so that its "
    "outputs reach all cells, and add an entropy term or raise its weight"
)
PROJECT = (
    "all codes move with the projection, so rows need no restart: see that the optimizer holds the "
    "projection and that the codes' own loss reaches it, and raise its learning rate to the "
    "encoder's or above"
)
ANNEAL = (
    "keep the temperature high for longer and lower it more slowly (wav2vec 2.0: from 2 down to "
    "0.5, x 0.999995 a step), and raise the weight of the diversity or KL term (wav2vec 2.0: 0.1), "
    "which rewards even use; a reset of rows does not change the logits"
)


class Kind(NamedTuple):
    """What to say of a layer whose codes do not follow a moving average."""

    away: str  #: why a code that lost its inputs stays unused
    never: str  #: why few are in use, if the history does not show more; "": what is said of all
    remedy: str  #: of few codes in use
    restart: str  #: in place of a dead code reset
    one: str  #: of one code that takes most


KINDS = {
    "fixed_grid": Kind(
        "The grid is fixed: its inputs have drawn together and reach few of its cells.",
        "The inputs of the grid reach few of its cells.",
        SPREAD,
        SPREAD,
        SPREAD,
    ),
    "projected": Kind(
        "The codes are a trained projection of a fixed table and move together. Suspect a "
        "projection that hardly learns, or encoder's outputs that have drawn together.",
        "The codes, a trained projection of a fixed table, lie where few of the encoder's outputs "
        "find them.",
        f"{PROJECT}; {BALANCE}",
        PROJECT,
        BALANCE,
    ),
    "gumbel": Kind(
        "Training draws the codes by their logits, with noise, not by distance. Logits that have "
        "grown apart, or a low temperature, leave few codes to be drawn, and those alone learn.",
        "The logits by which codes are drawn favour few of them.",
        ANNEAL,
        ANNEAL,
        ANNEAL,
    ),
    "by_gradient": Kind(
        "Only gradients move the codes, and a code that no input takes gets none. Suspect the "
        "balance of the losses first: a quantizer's loss that outweighs the reconstruction's "
        "draws the encoder's outputs together.",
        "",
        f"{BALANCE}; {RESTART}",
        RESTART,
        BALANCE,
    ),
}
"""By the setting that is 1 for such a layer; of several, the first."""


def kind(log: Log) -> Kind | None:
    """None: the codes follow a moving average, or what moves them is not known."""
    return next((k for name, k in KINDS.items() if getattr(log.settings, name)), None)


def remedy_reset(log: Log) -> str:
    """A reset in this run's numbers; one that may be on already is not said to be off."""
    if own := kind(log):
        return own.restart
    asked = "" if log.settings.dead_code_threshold == 0 else "if no reset is on, "
    share, level = log.settings.share, ""
    if share is not None:
        level = (
            f" below {GOOD_THRESHOLD * share:.2g} hits a step ({GOOD_THRESHOLD} of the uniform "
            f"share N/K = {share:.4g}), with the count refilled to {GOOD_REFILL * share:.4g}, "
            f"every {GOOD_EVERY} steps"
        )
    return (
        f"{asked}turn on dead code reset{level}: DeadCodeReset(threshold={GOOD_THRESHOLD}, "
        f"relative=True, refill={GOOD_REFILL}, every={GOOD_EVERY})"
    )
