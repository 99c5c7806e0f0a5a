"""What the guide says, in one place: its measurements, promises and rules. Nothing here is ours.

The guide is a Korean text on implementing dead code reset. It is written for a VQ-VAE with an
L2-normalised EMA codebook ("NormEMA", first published with BEiT v2 and later used for EEG
tokenizers). It states its settings, the collapse that it observed and what it takes to be the
causes; what the reset achieves it only expects.

The notebooks set these numbers beside measured ones. A step is one of the guide's iterations;
utilization is a share of the codebook.
"""

from __future__ import annotations

from dataclasses import dataclass

SETTING = {"codebook_size": 512, "batch_size": 32, "decay": 0.9, "beta": 0.25, "kmeans_init": True}
"""The settings that the guide states. It does not state model, learning rate or warm-up length."""

CURVE_BEFORE = {0: 1.0, 50: 0.887, 100: 0.492, 200: 0.238}
CURVE_AFTER = {0: 1.0, 50: 0.92, 100: 0.78, 200: 0.65}
"""Utilization in training: as the guide observed it, and as it expects it with the reset."""

VAL_BEFORE, VAL_AFTER = 0.117, 0.60
"""Validation utilization: observed, and the least that is expected with the reset."""

TOP_CODE, TOP_CODE_BEFORE = 62, 3807
"""The most used code in validation, and how often it was chosen: observed."""

GAP_BEFORE, GAP_AFTER = 0.12, 0.05
"""Training minus validation utilization: observed, and the most expected with the reset."""

EPOCH_STEPS = 200
"""Iterations after which the guide speaks of the end of epoch 1."""


@dataclass(frozen=True)
class Level:
    """A level of success; None where the guide asks nothing."""

    name: str
    epoch_utilization: float
    val_utilization: float
    max_gap: float | None = None
    max_top_code_ratio: float | None = None

    def judge(
        self, epoch_utilization: float, val_utilization: float, gap: float, top_code_ratio: float
    ) -> dict[str, bool]:
        """{criterion: met} of what was measured."""
        verdict = {
            f"utilization after epoch 1 > {self.epoch_utilization:.0%}": epoch_utilization
            > self.epoch_utilization,
            f"validation utilization > {self.val_utilization:.0%}": val_utilization
            > self.val_utilization,
        }
        if self.max_gap is not None:
            verdict[f"train-validation gap < {self.max_gap * 100:.0f} points"] = gap < self.max_gap
        if self.max_top_code_ratio is not None:
            verdict[f"top code < {self.max_top_code_ratio:.0f} x the average"] = (
                top_code_ratio < self.max_top_code_ratio
            )
        return verdict


LEVELS = (
    Level("minimal", 0.30, 0.25),
    Level("target", 0.50, 0.45, max_gap=0.10),
    Level("optimal", 0.70, 0.65, max_top_code_ratio=2.0),
)

TROUBLESHOOTING = (
    (
        "resets too often (400 and more codes each iteration)",
        "lower the threshold: 1.0 to 0.5 or 0.0",
    ),
    ("never resets", "raise the threshold to 1.0 or 5.0"),
    (
        "training turns unstable (loss spikes, NaN)",
        "lower the threshold; reset every 10 iterations; lower the learning rate",
    ),
    (
        "collapses all the same",
        "is the encoder's similarity above 0.9? is the decay too high (0.9 to 0.7)? "
        "does the log show resets at all?",
    ),
)
"""(symptom, what the guide says)."""


def encoder_verdict(similarity: float, std: float) -> str:
    """The guide's reading of encoder outputs: average pairwise cosine and feature deviation."""
    if similarity > 0.9 and std < 0.01:
        return "certain encoder collapse"
    if similarity > 0.95:
        return "critical"
    if similarity >= 0.85:
        return "warning"
    return "normal" if similarity >= 0.65 else "excellent"
