"""The remedies of notebook 06: what each changes, whose idea it is, and how many knobs it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vqlib.training import experiments
from vqlib.training.config import TrainConfig

LENGTH = {"steps": 200, "cooldown_steps": 80}  # the ratios of notebook 04, on the small bed
BED = replace(experiments.SMALL, trace_every=0, **LENGTH)
"""What all remedies have in common: K 128, eight pictures a step, errors read when settled."""


@dataclass(frozen=True)
class Remedy:
    """One arm.

    Attributes:
        acts: on what: "dead codes", "codebook", "assignment", "encoder" or "lattice".
        source: key in notebooks/references.bib.
        knobs: what its user must choose beyond K, dim, decay and beta.
        settings: of the `TrainConfig`, against `BED`.
        layer: name in `packages.LAYERS`; None: our quantizer.
        alone: whether it changes anything where the encoder is only a recording.
    """

    acts: str
    source: str
    knobs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    layer: str | None = None
    alone: bool = True

    def config(self, seed: int, **changes) -> TrainConfig:
        """Its settings with a seed and further ``changes`` of `BED`."""
        return replace(BED, **changes | {"seed": seed} | dict(self.settings))


_RESET = {"dead_code_threshold": 1.0}
_BATCH = _RESET | {"reset_donors": "batch"}
_MIMI = {
    "dead_code_threshold": 0.1,
    "reset_relative": True,
    "reset_refill": 1.0,
    "reset_donors": "batch",
    "reset_interval": 5,
}
_THRESHOLD = ("threshold", "interval")


def _ours(acts: str, source: str, variant: str, *knobs: str, **settings) -> Remedy:
    alone = settings.pop("alone", True)
    return Remedy(acts, source, knobs, {"variant": variant} | settings, alone=alone)


REMEDIES: dict[str, Remedy] = {
    "baseline": Remedy("nothing", "peng2022"),
    "reset": Remedy("dead codes", "guide", _THRESHOLD, _RESET),
    "random batch": Remedy("dead codes", "lancucki2020", _THRESHOLD, _BATCH),
    "k-means restart": _ours(
        "dead codes", "lancucki2020", "kmeans-restart", *_THRESHOLD, "iterations", **_RESET
    ),
    "split most used": _ours(
        "dead codes", "kolesnikov2022", "splits-most-used", *_THRESHOLD, "distance", **_RESET
    ),
    "Mimi's rule": Remedy("dead codes", "defossez2024", (*_THRESHOLD, "refill"), _MIMI),
    "anchors": _ours("codebook", "zheng2023", "anchored", "sharpness"),
    "memory reset": _ours("codebook", "guide", "memory-reset", "period"),
    "drift kernel": _ours("codebook", "lu2026stationarity", "drift-kernel", "sharpness"),
    "matched moments": _ours("codebook", "fang2025", "matched-moments", "weight"),
    "Gumbel": _ours(
        "assignment",
        "jang2017",
        "gumbel",
        "first temperature",
        "last",
        "steps",
        "even",
        "sharpness",
    ),
    "balanced": _ours("assignment", "zhang2024", "balanced", "sharpness", "iterations"),
    "entropy loss": _ours("encoder", "yu2024", "entropy-loss", "weight", "sharpness", alone=False),
    "deferred": _ours("encoder", "continuous2026", "deferred", "steps"),
    "staged freezing": Remedy(
        "encoder",
        "lu2026nsvq",
        (*_THRESHOLD, "step"),
        _BATCH | {"freeze_encoder_at": LENGTH["steps"] // 2},
        alone=False,
    ),
    "8-dim codes": Remedy("encoder", "yu2022", ("dimension",), {"dim": 8}, alone=False),
    "package": Remedy("nothing", "vandenoord2017", layer="plain"),
    "rotation trick": Remedy("encoder", "fifty2025", layer="rotation", alone=False),
    "affine": Remedy("codebook", "huh2023", ("two decays",), layer="affine"),
    "DiVeQ": Remedy("codebook", "vali2025", ("variance", "threshold"), layer="diveq"),
    "SimVQ": Remedy("codebook", "zhu2024", layer="simvq"),
    "FSQ": Remedy("lattice", "mentzer2023", ("levels",), layer="fsq"),
    "two levels": Remedy("lattice", "zeghidour2021", ("sizes",), layer="residual"),
}
