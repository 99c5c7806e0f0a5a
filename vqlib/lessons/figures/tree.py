"""The decision tree: from "few codes are in use" to what to do, a link at each leaf."""

from __future__ import annotations

from typing import NamedTuple

from IPython.display import HTML

from vqlib.diagnosis.findings import template


class Question(NamedTuple):
    """One fork: the answer ``leaves`` ends at a leaf, the other goes on to the next question."""

    text: str
    look: str  #: where the answer stands
    leaves: str  #: "yes" or "no"
    leaf: str
    finding: str
    notebook: str


REPRODUCE, CAUSES, RESET, COMPARE, TUNE, BEYOND, PLAY = (
    "01_reproduce_collapse",
    "02_diagnose_ema_bias",
    "03_reset_dead_codes",
    "04_compare_before_after",
    "05_tune",
    "06_beyond_reset",
    "07_playground",  # whose presets show the faults that no lesson takes up
)

QUESTIONS = (
    Question(
        "Does a row count at least 3 K tokens?",
        "window_tokens; uniform use would show 95 %",
        "no",
        "Count over more tokens before you judge.",
        "window-too-small",
        REPRODUCE,
    ),
    Question(
        "Are at least half of the codes in use?",
        "utilization over what uniform use shows",
        "yes",
        "No collapse. Does more use pay in reconstruction and downstream?",
        "healthy",
        COMPARE,
    ),
    Question(
        "Are encoder outputs nearly one?",
        "encoder_similarity above 0.95",
        "yes",
        "Mend the encoder first: no reset can split equal outputs.",
        "encoder-collapse",
        CAUSES,
    ),
    Question(
        "Do encoder outputs and codes vary in many dimensions?",
        "encoder_rank, code_rank; few: below 8 and below 5 % of what D could show",
        "no",
        "Train as an autoencoder first and quantize later, at a lower rate or beta.",
        "dimensional-collapse",
        BEYOND,
    ),
    Question(
        "Is the gradient of the commitment below 5 x that of the reconstruction?",
        "commit_gradient_ratio, where it is highest",
        "no",
        "Balance the losses: both summed or both averaged, or a lower beta.",
        "commitment-outweighs-reconstruction",
        PLAY,
    ),
    Question(
        "Is a reset on, and does it fire?",
        "resets above 0, threshold above 0",
        "no",
        "Turn dead code reset on, relative to the uniform share.",
        "reset-never-fires",
        RESET,
    ),
    Question(
        "Does it go on to the end of training?",
        "resets in the last rows; or used_codes does not fall after the last one",
        "no",
        "Keep it on to the end, and see why the codebook needs it.",
        "resets-ended-too-early",
        PLAY,
    ),
    Question(
        "Is the threshold below half of N/K?",
        "dead_code_threshold, tokens_per_step, K",
        "no",
        "Lower it to 0.1 of N/K: counts add up to N, no more.",
        "threshold-above-share",
        TUNE,
    ),
    Question(
        "Do reset codes live on?",
        "survived at least 25 %, premature 0",
        "no",
        "Something undoes the reset: audit the quantizer, above.",
        "reset-does-not-survive",
        RESET,
    ),
    Question(
        "Do resets become fewer?",
        "resets, late against early",
        "no",
        "The encoder outruns its codes: slow it, or let the rate fall at the end.",
        "encoder-drift",
        CAUSES,
    ),
    Question(
        "Does validation use as many codes as training?",
        "gap at most 10 points",
        "no",
        "Codes fit single batches: judge by mature codes and by validation.",
        "train-validation-gap",
        COMPARE,
    ),
)
LAST = "Resets live and decline: train on, and look again."


def tree() -> HTML:
    """The tree as a figure of linked boxes; shows in a notebook and in the report."""
    return HTML(template("tree.html.j2", __package__).render(questions=QUESTIONS, last=LAST))
