"""The vicious cycle on trial: each claim, the arm that would refute it, and on what it is run.

An arm is a `TrainConfig` that changes one thing against its bed's baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from vqlib.quantization.interventions import SWAP_AT, leaders
from vqlib.quantization.names import near
from vqlib.training.config import TrainConfig
from vqlib.training.experiments import PRESET, SMALL
from vqlib.training.runs import Run

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

    Attributes:
        place: where it stands in the guide: "claim 1", "arrow 1-2", "root cause"; or "ours".
        claim: what is said.
        cause: what is tested, as a noun.
        predicts: what happens in the decisive arm, the first of ``arms``, if the claim is true.
        sign: of the predicted effect on the number of codes in use.
        arms: the interventions that test it.
    """

    place: str
    claim: str
    cause: str
    predicts: str
    sign: int
    arms: tuple[str, ...]

    @property
    def decisive(self) -> str:
        return self.arms[0]


ARMS = {
    a.name: a
    for a in (
        Arm("baseline", "nothing is changed"),
        Arm(
            "random counts",
            "every count is replaced by a random number after each step",
            {"variant": "random-counts"},
        ),
        Arm(
            "zeroed counts", "every count is set to 0 after each step", {"variant": "zeroed-counts"}
        ),
        Arm("decay 0", "no memory at all", {"decay": 0.0}),
        Arm("decay 0.99", "a memory of 100 steps", {"decay": 0.99}),
        Arm("decay 0.999", "a memory of 1,000 steps", {"decay": 0.999}),
        Arm(
            "leaders held",
            "the tenth of the codes with the highest counts is not moved",
            {"variant": "leaders-held"},
        ),
        Arm(
            "swapped places",
            "leaders and trailers exchange their vectors after 25 steps",
            {"variant": "swapped-places"},
        ),
        Arm("codes never move", "no code is strengthened (decay 1)", {"decay": 1.0}),
        Arm(
            "count-weighted",
            "hits do strengthen: EMA of sums over EMA of counts",
            {"variant": "count-weighted"},
        ),
        Arm(
            "gradient codebook",
            "codes descend the codebook loss instead of EMA",
            {"variant": "gradient-codebook"},
        ),
        Arm(
            "unused drift",
            "unused codes follow the mean movement of the used ones",
            {"variant": "unused-drift"},
        ),
        Arm(
            "unused pulled",
            "unused codes move to their nearest input, at EMA's rate",
            {"variant": "unused-pulled"},
        ),
        Arm("random start", "random unit vectors instead of k-means", {"kmeans_init": False}),
        Arm("random inputs", "random inputs instead of k-means", {"variant": "random-inputs"}),
        Arm(
            "unbalanced start",
            "k-means of one corner of the batch",
            {"variant": "unbalanced-start"},
        ),
        Arm("frozen encoder", "the encoder does not learn", {"freeze_encoder_at": 0}),
        Arm("frozen at 1/4", "the encoder stops after a quarter of the steps", slowed=4),
        Arm("frozen at 1/2", "the encoder stops after half of the steps", slowed=2),
        Arm("slow encoder", "a tenth of the learning rate", {"learning_rate": 1e-4}),
        Arm("beta 0", "no commitment loss: nothing pulls outputs to codes", {"beta": 0.0}),
        Arm("beta 0.1", "a weaker commitment loss", {"beta": 0.1}),
        Arm("beta 1", "a stronger commitment loss", {"beta": 1.0}),
    )
}
"""The baseline and every intervention, by name."""

LEADERS_SHARE = "leaders' share of tokens"  # no arm: observed in the baseline, see `leaders_gain`

HYPOTHESES = {
    "counts": Hypothesis(
        "claim 1",
        "what cluster_size remembers keeps dominant codes dominant",
        "the counts' memory",
        "with random counts, more codes stay in use",
        +1,
        ("random counts",),
    ),
    "1-2": Hypothesis(
        "arrow 1-2",
        "EMA strengthens the codes that were used a lot early",
        "the strengthening of early leaders",
        "if EMA does not move the leaders, more codes stay in use",
        +1,
        ("leaders held", "swapped places"),
    ),
    "2-3": Hypothesis(
        "arrow 2-3",
        "a strengthened code draws more and more inputs",
        "the strengthening of codes by EMA",
        "if no code is strengthened, more codes stay in use",
        +1,
        ("codes never move", "count-weighted"),
    ),
    "3-4": Hypothesis(
        "arrow 3-4",
        "leading codes take the inputs of the others",
        "the leaders' growing share",
        "the early leaders' share of the tokens grows",
        +1,
        (LEADERS_SHARE,),
    ),
    "4-5": Hypothesis(
        "arrow 4-5",
        "a code is dead once its cluster_size is 0",
        "a count of 0",
        "with all counts at 0, fewer codes stay in use",
        -1,
        ("zeroed counts",),
    ),
    "5-6": Hypothesis(
        "arrow 5-6",
        "an unused code is not updated, so it never comes back",
        "the fact that nothing moves unused codes",
        "if unused codes are moved, more codes stay in use",
        +1,
        ("unused pulled", "unused drift"),
    ),
    "memory": Hypothesis(
        "root cause",
        "EMA's memory (a high decay, smoothing) makes it worse",
        "the length of EMA's memory",
        "without memory, more codes stay in use",
        +1,
        ("decay 0", "decay 0.99", "decay 0.999"),
    ),
    "start": Hypothesis(
        "root cause",
        "an unbalanced start stays unbalanced",
        "the initialisation",
        "from an unbalanced start, fewer codes stay in use",
        -1,
        ("unbalanced start", "random inputs", "random start"),
    ),
    "gradient": Hypothesis(
        "root cause",
        "no gradient reaches the codes, so nothing corrects them",
        "the missing gradient",
        "with a gradient, more codes stay in use",
        +1,
        ("gradient codebook",),
    ),
    "drift": Hypothesis(
        "ours",
        "the encoder's outputs drift away from codes that are no longer updated",
        "the movement of the encoder",
        "with a still encoder, more codes stay in use",
        +1,
        ("frozen encoder", "frozen at 1/4", "frozen at 1/2", "slow encoder"),
    ),
    "pull": Hypothesis(
        "ours",
        "the commitment loss gathers the outputs around few codes",
        "the commitment loss",
        "without that loss, more codes stay in use",
        +1,
        ("beta 0", "beta 0.1", "beta 1"),
    ),
}
"""Each claim by a short name, with the intervention that would refute it."""


def configs(bed: str, arms: Mapping[str, str] | None = None) -> dict[str, TrainConfig]:
    """{arm: config} of every arm on a bed, for `experiments.compare`.

    ``arms`` puts another arm in the place of a named one: {name: arm that is run instead}.
    Raises ValueError for an unknown bed or arm.
    """
    if bed not in BEDS:
        raise ValueError(f"unknown bed {bed!r}" + near(bed, BEDS))
    instead = dict(arms or {})
    for name in (*instead, *instead.values()):
        if name not in ARMS:
            raise ValueError(f"unknown arm {name!r}" + near(name, ARMS))
    return {name: ARMS[instead.get(name, name)].config(BEDS[bed]) for name in ARMS}


def windows(run: Run, share: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    """Hits of each code (K,) in the first ``share`` of the steps, in the next, and in the last."""
    counts = run.trace["counts"]
    n = max(1, round(share * len(counts)))
    return tuple(part.sum(dim=0) for part in (counts[:n], counts[n : 2 * n], counts[-n:]))


def leaders_gain(run: Run) -> float:
    """Growth, as a share of all tokens, of what the early leaders take.

    Leaders are the tenth of the codes most used in the first tenth of the steps. Growth is
    counted from the next tenth to the last: in the window that chose them they lead by luck too.
    """
    first, early, late = windows(run)
    who = leaders(first)
    return float(late[who].sum() / late.sum() - early[who].sum() / early.sum())


def swap_outcome(run: Run) -> dict[str, float]:
    """Shares of the last tenth's tokens after "swapped places", by what had led at the swap.

    "number": the codes that led, now at trailing places; "place": the codes that got theirs.
    """
    at = run.trace["steps"].tolist().index(SWAP_AT)
    counts, (*_, late) = run.trace["cluster_size"][at], windows(run)
    groups = {"number": leaders(counts), "place": leaders(-counts)}
    return {name: float(late[codes].sum() / late.sum()) for name, codes in groups.items()}


def mechanisms(runs: Mapping[tuple[str, int], Run]) -> pd.DataFrame:
    """One row per arm and seed: what was measured beside the use of the codes.

    Columns: ``drift`` (degrees a step, mean over the training), ``lag`` (degrees, mean over the
    validations), ``dead_codes`` and ``dead_distance`` (degrees; at the end), ``utilization``.
    """
    rows = []
    for (arm, seed), run in runs.items():
        val, end = run.split("val"), run.split("val").iloc[-1]
        rows.append(
            {
                "arm": arm,
                "seed": seed,
                "drift": run.split("train")["drift"].mean(),
                "lag": val["lag"].mean(),
                "dead_codes": run.config.codebook_size - end["used_codes"],
                "dead_distance": end["dead_distance"],
                "utilization": end["utilization"],
            }
        )
    return pd.DataFrame(rows)
