"""The guide's third phase: which setting of the reset, chosen how, and what its company adds.

The arms of the grid change `HOME`; each bed changes the size of the codebook or of the batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from vqlib.lessons import effects
from vqlib.quantization.names import near
from vqlib.training.config import TrainConfig
from vqlib.training.experiments import SMALL, summary_table
from vqlib.training.runs import Run

HOME = replace(SMALL, val_every=SMALL.steps, log_every=SMALL.steps, trace_every=0)
"""The small bed of notebook 02; only its end is read."""

SHARE = 12.25
"""N/K of `HOME`: hits a step of a code in even use."""

DECAYS, BETAS = (0.99, 0.9, 0.75, 0.7, 0.5), (0.25, 0.1)
THRESHOLDS, RELATIVE = (0.5, 1.0, 5.0, 10.0), (0.05, 0.1, 0.25, 0.5)
INTERVALS, DONORS = (1, 5, 10, 50), ("most_used", "top", "batch", "usage")

_ONE_SHARE = {"reset_refill": 1.0}  # in shares
GUIDE = {"dead_code_threshold": 1.0}
"""What the guide's reset changes in `HOME`."""

WORDS = {
    "dead_code_threshold": "threshold {:g}",
    "reset_refill": "refill {:g}",
    "reset_interval": "every {} steps",
    "reset_donors": "donors {}",
    "decay": "decay {:g}",
    "beta": "beta {:g}",
}
"""How a change is called in the name of its arm."""


def name(changes: Mapping) -> str:
    """Of an arm, from what it changes in `HOME`: "baseline", "reset, decay 0.75"."""
    on = "dead_code_threshold" in changes
    parts = ["reset"] if on else []
    for field, words in WORDS.items():
        value = changes.get(field)
        if value is not None and (field, value) != ("dead_code_threshold", 1.0):
            parts.append(words.format(value))
    text = ", ".join(parts) or "baseline"
    return f"{text}, in shares" if changes.get("reset_relative") else text


def grid() -> dict[str, TrainConfig]:
    """{arm: config} at home: each factor of the reset, and the pairs whose interaction is asked.

    Decay by beta by reset; decay by threshold and by refill; threshold by refill and by interval;
    donors by refill; thresholds in shares of N/K, refilled to one share.
    """
    crossed = [
        reset | {"decay": decay, "beta": beta}
        for reset in ({}, GUIDE)
        for decay in DECAYS
        for beta in BETAS
    ]
    crossed += [_on(t, decay=d) for t in THRESHOLDS for d in (0.9, 0.5)]
    crossed += [_on(t, reset_refill=refill) for t in THRESHOLDS for refill in (None, SHARE)]
    crossed += [_on(t, reset_interval=n) for t in (1.0, 5.0) for n in INTERVALS]
    crossed += [_on(1.0, reset_donors=d, reset_refill=r) for d in DONORS for r in (None, SHARE)]
    crossed += [_on(1.0, reset_refill=SHARE, decay=d) for d in (0.75, 0.5)]
    crossed += [_on(t, reset_relative=True, **_ONE_SHARE) for t in RELATIVE]
    return {name(changes): replace(HOME, **changes) for changes in map(_changed, crossed)}


def _on(threshold: float, **changes) -> dict:
    return {"dead_code_threshold": threshold} | changes


def _changed(changes: Mapping) -> dict:
    """Without what is as in `HOME`."""
    return {field: value for field, value in changes.items() if getattr(HOME, field) != value}


BEDS = {
    "K 128, N 392": {"batch_size": 2},
    "K 512, N 1568": {"codebook_size": 512},
    "K 4096, N 1568": {"codebook_size": 4096},
}
"""Where `HOME`'s settings travel to, by what changes; N is tokens a step."""

TRAVELLERS = {
    "off": {},
    "guide, in hits": GUIDE | {"reset_refill": 2.0},
    "guide, in shares": _on(1 / SHARE, reset_refill=2 / SHARE, reset_relative=True),
    "0.1, in hits": _on(0.1 * SHARE, reset_refill=SHARE),
    "0.1, in shares": _on(0.1, reset_relative=True, **_ONE_SHARE),
    "short memory, in hits": _on(0.5, reset_refill=1.5, decay=0.5),
    "short memory, in shares": _on(
        0.5 / SHARE, reset_refill=1.5 / SHARE, reset_relative=True, decay=0.5
    ),
    "0.25, in shares": _on(0.25, reset_relative=True, **_ONE_SHARE),
    "0.5, in shares": _on(0.5, reset_relative=True, **_ONE_SHARE),
}
"""Settings that travel. Of a pair, both are the same at home: one keeps its hits a step, the
other its multiple of N/K. "short memory" is what the trial's choosing seeds chose."""


def travels() -> dict[tuple[str, str], TrainConfig]:
    """{(bed, traveller): config}."""
    return {
        (bed, arm): replace(HOME, **size, **changes)
        for bed, size in BEDS.items()
        for arm, changes in TRAVELLERS.items()
    }


# the claims of phase 3, and the rule

COMPANIONS = {
    "decay 0.75": {"decay": 0.75},
    "decay 0.7": {"decay": 0.7},
    "beta 0.1": {"beta": 0.1},
    "decay 0.75, beta 0.1": {"decay": 0.75, "beta": 0.1},
    "decay 0.7, beta 0.1": {"decay": 0.7, "beta": 0.1},
}
"""What the guide combines its reset with, by what is changed; each is a claim of a synergy."""


def claim_arms() -> set[str]:
    """Every arm at home that a claim is judged by."""
    alone = ({}, *COMPANIONS.values())
    return {name(reset | changes) for reset in ({}, GUIDE) for changes in alone}


class Synergy(NamedTuple):
    """What a companion does, in points, a value for each seed."""

    alone: pd.Series  #: its effect without the reset
    beside: pd.Series  #: its effect on top of the reset

    @property
    def more(self) -> pd.Series:
        """The interaction: how much more it does beside the reset than alone."""
        return self.beside - self.alone


def synergy(
    table: pd.DataFrame, changes: Mapping, value: str = "utilization", scale: float = 100
) -> Synergy:
    """Of a companion that makes these ``changes``, over the seeds that all four arms share."""
    wide = table.pivot(index="seed", columns="arm", values=value)
    arms = [name(reset | change) for reset in ({}, GUIDE) for change in ({}, changes)]
    off, alone, on, both = (scale * wide[arms].dropna()[arm] for arm in arms)
    return Synergy(alone - off, both - on)


def judged(table: pd.DataFrame, value: str = "utilization", scale: float = 100) -> pd.DataFrame:
    """One row a companion of the guide: its effects, the interaction, and two verdicts.

    ``adds``: on the claim that it adds something to the reset; ``verdict``: on the claim that it
    does more beside the reset than alone. Both by `effects.verdict`, whose margin is in points.
    Columns ``alone``, ``beside`` and ``more`` are (mean, low, high).
    """
    rows = {}
    for companion, changes in COMPANIONS.items():
        found = synergy(table, changes, value, scale)
        alone, beside, more = map(effects.bootstrap, (found.alone, found.beside, found.more))
        adds, verdict = (effects.verdict(*ends, +1) for (_, *ends) in (beside, more))
        rows[companion] = {
            "seeds": len(found.more),
            "alone": alone,
            "beside": beside,
            "adds": adds,
            "more": more,
            "verdict": verdict,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


# the grid: main effects and interactions


class Crossing(NamedTuple):
    """Every level of one setting with every level of another, beside what all have in common."""

    row: str
    rows: tuple
    column: str
    columns: tuple
    common: Mapping = GUIDE
    reference: str = "reset"  #: the arm that the others are compared with

    def arm(self, row, column) -> str:
        return name(_changed(self.common | {self.row: row, self.column: column}))

    def cells(self, table: pd.DataFrame, value: str) -> dict[tuple, pd.Series]:
        """{(row, column): the value by seed}, over the seeds that all its arms share."""
        arms = {(r, c): self.arm(r, c) for r in self.rows for c in self.columns}
        wide = table.pivot(index="seed", columns="arm", values=value)
        shared = wide[list(dict.fromkeys(arms.values()))].dropna()
        return {levels: shared[arm] for levels, arm in arms.items()}

    def effects(self, table: pd.DataFrame, value: str, scale: float = 100) -> pd.DataFrame:
        """Rows as of `effects.paired`, and ``kind``: "main effect" or "interaction".

        A main effect is the change from the guide's level, averaged over the levels of the other
        setting; an interaction is a difference of such changes. Both are taken seed by seed.
        """
        of = {levels: scale * values for levels, values in self.cells(table, value).items()}
        r0, c0 = (getattr(GUIDED, field) for field in (self.row, self.column))
        rows = [r for r in self.rows if r != r0]
        columns = [c for c in self.columns if c != c0]
        main = {
            said(self.row, r): sum(of[r, c] - of[r0, c] for c in self.columns) / len(self.columns)
            for r in rows
        } | {
            said(self.column, c): sum(of[r, c] - of[r, c0] for r in self.rows) / len(self.rows)
            for c in columns
        }
        both = {
            f"{said(self.row, r)} x {said(self.column, c)}": (of[r, c] - of[r0, c])
            - (of[r, c0] - of[r0, c0])
            for r in rows
            for c in columns
        }
        kinds = {"main effect": main, "interaction": both}
        return pd.concat([effects.table_of(v).assign(kind=k) for k, v in kinds.items()])


GUIDED = replace(HOME, **GUIDE)
"""The guide's reset at home: the level of every setting that the others are compared with."""

CROSSINGS = {
    "decay and beta": Crossing("decay", DECAYS, "beta", BETAS),
    "decay and threshold": Crossing("decay", (0.9, 0.5), "dead_code_threshold", THRESHOLDS, {}),
    "decay and refill": Crossing("decay", (0.9, 0.75, 0.5), "reset_refill", (None, SHARE)),
    "threshold and refill": Crossing(
        "dead_code_threshold", THRESHOLDS, "reset_refill", (None, SHARE), {}
    ),
    "threshold and interval": Crossing(
        "dead_code_threshold", (1.0, 5.0), "reset_interval", INTERVALS, {}
    ),
    "donors and refill": Crossing("reset_donors", DONORS, "reset_refill", (None, SHARE)),
}
"""The parts of the grid in which two settings are tried in every combination."""

WITHOUT_RESET = Crossing("decay", DECAYS, "beta", BETAS, {}, "baseline")
IN_SHARES = Crossing("reset_relative", (True,), "dead_code_threshold", RELATIVE, _ONE_SHARE)
"""Thresholds in shares of N/K, refilled to one share; the guide's is not among them."""


def said(field: str, value) -> str:
    """A level in words: "decay 0.75"; the guide's refill has no number."""
    if field == "reset_refill" and value is None:
        return "refill threshold + 1"
    return WORDS[field].format(value)


def grid_effects(table: pd.DataFrame, value: str = "utilization", scale: float = 100):
    """Main effects and interactions of all `CROSSINGS`, with the ``crossing`` each is from."""
    found = [c.effects(table, value, scale).assign(crossing=n) for n, c in CROSSINGS.items()]
    return pd.concat(found)


# choosing a setting, and what choosing costs

CHOOSING, CONFIRMING = range(5), range(5, 10)
SCORE = "perplexity"


def eligible(table: pd.DataFrame, seeds: Iterable[int], reference: str = "reset") -> pd.DataFrame:
    """Means over ``seeds`` of the arms whose reconstruction error is not above the reference's."""
    means = table[table["seed"].isin(seeds)].groupby("arm")[[SCORE, "recon_loss"]].mean()
    return means[means["recon_loss"] <= means.loc[reference, "recon_loss"]]


def choose(table: pd.DataFrame, seeds: Iterable[int], reference: str = "reset") -> str:
    """The arm with the highest mean perplexity over ``seeds``, of the `eligible` ones."""
    return eligible(table, seeds, reference)[SCORE].idxmax()


def regrets(table: pd.DataFrame, seeds: Iterable[int]) -> pd.DataFrame:
    """Choosing on each half of the ``seeds``, and scoring the choice on the other half.

    One row a way to halve them: the ``chosen`` arm, its mean score where it was ``choosing`` and
    where it is ``confirming``, and the ``regret``, the first minus the second.
    """
    seeds = list(seeds)
    mean = table.pivot(index="seed", columns="arm", values=SCORE)
    rows = []
    for half in itertools.combinations(seeds, len(seeds) // 2):
        rest = [s for s in seeds if s not in half]
        arm = choose(table, half)
        there, here = mean.loc[list(half), arm].mean(), mean.loc[rest, arm].mean()
        rows.append({"chosen": arm, "choosing": there, "confirming": here, "regret": there - here})
    return pd.DataFrame(rows)


# tables, and what was just measured beside what was kept

RESULTS = {
    "val_utilization": "utilization",
    "val_perplexity": "perplexity",
    "val_top_code_ratio": "top_code_ratio",
    "val_recon_loss": "recon_loss",
    "total_resets": "resets",
}
"""Columns of a run's summary, and what they are called here."""

MEASURES = {
    "utilization (points)": ("utilization", 100, "{:+.1f}"),
    "perplexity (codes)": ("perplexity", 1, "{:+.1f}"),
    "error (MSE x 1,000)": ("recon_loss", 1000, "{:+.2f}"),
}
"""{heading: (column, what it is multiplied by, form)}"""


def ends(runs: Mapping[tuple[str, int], Run]) -> pd.DataFrame:
    """One row a run, with the columns of the kept trial."""
    table = summary_table(runs).rename(columns=RESULTS)
    return table[["arm", "seed", *RESULTS.values()]]


def drift(
    fresh: pd.DataFrame, kept: pd.DataFrame, arms: Iterable[str], value: str = "utilization"
) -> pd.DataFrame:
    """Means of arms just measured beside the kept ones, and how far apart they are.

    ``deviations``: the difference over its standard error, from the kept spread over seeds, so
    that few fresh seeds may lie further away.
    """
    rows = {}
    for arm in arms:
        new, old = (t.loc[t["arm"] == arm, value] for t in (fresh, kept))
        error = old.std() * math.sqrt(1 / len(new) + 1 / len(old))
        mean, before = new.mean(), old.mean()
        rows[arm] = {"kept": before, "now": mean, "deviations": (mean - before) / error}
    return pd.DataFrame.from_dict(rows, orient="index")


def main_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Every main effect of `CROSSINGS` on each of `MEASURES`, as text."""
    columns = {}
    for heading, (value, scale, form) in MEASURES.items():
        found = grid_effects(table, value, scale)
        found = found[found["kind"] == "main effect"].set_index("crossing", append=True)
        columns[heading] = [
            effects.bracketed(e, form) for e in found[["mean", "low", "high"]].to_numpy()
        ]
    shown = pd.DataFrame(columns, index=found.index).rename_axis(["change", "averaged in"])
    return shown.reset_index()[["averaged in", "change", *columns]]


def summed_up(table: pd.DataFrame, value: str = "utilization") -> dict[str, list[str]]:
    """Main effects by what their intervals show, in points: more codes, fewer, neither, or open.

    A change "does not matter" if its whole interval lies within `effects.MARGIN` of 0, even if it
    excludes 0. A change that several crossings try is named with each.
    """
    found: dict[str, list[str]] = {
        kind: [] for kind in ("more", "fewer", "does not matter", "undecided")
    }
    for row in grid_effects(table, value).query("kind == 'main effect'").itertuples():
        if max(abs(row.low), abs(row.high)) < effects.MARGIN:
            kind = "does not matter"
        elif row.low > 0 or row.high < 0:
            kind = "more" if row.low > 0 else "fewer"
        else:
            kind = "undecided"
        found[kind].append(f"{row.Index} (in {row.crossing})")
    return found


def pairs(table: pd.DataFrame, value: str = "utilization", scale: float = 100) -> pd.DataFrame:
    """In each bed, and for each setting: its shares of N/K minus its hits a step.

    ``table``: with a column ``bed``. Rows as of `effects.paired`, with ``bed`` and ``setting``.
    """
    rows = []
    for bed in dict.fromkeys(table["bed"]):
        own = table[table["bed"] == bed]
        for setting in ("guide", "0.1", "short memory"):
            hits, shares = f"{setting}, in hits", f"{setting}, in shares"
            found = effects.paired(own, value, scale=scale, reference=hits)
            rows.append(found.loc[[shares]].assign(bed=bed, setting=setting))
    return pd.concat(rows, ignore_index=True)


def notice(config: TrainConfig) -> int:
    """Steps until a code at its share of `HOME` that is hit no more falls below the threshold."""
    threshold, _ = config.reset().limits(config.codebook_size, round(SHARE * config.codebook_size))
    return math.floor(math.log(SHARE / threshold) / -math.log(config.decay)) + 1


def ceilings() -> pd.DataFrame:
    """For each bed and traveller: threshold in hits, its ceiling and its grace."""
    rows = []
    for (bed, arm), config in travels().items():
        tokens = config.batch_size * 14 * 14
        reset = config.reset()
        if reset:
            threshold, _ = reset.limits(config.codebook_size, tokens)
            room = reset.ceiling(config.codebook_size, tokens)
            rows.append(
                (
                    bed,
                    tokens / config.codebook_size,
                    arm,
                    threshold,
                    room,
                    reset.grace(config.decay),
                )
            )
    columns = ["bed", "N/K", "setting", "threshold (hits)", "ceiling", "grace (steps)"]
    return pd.DataFrame(rows, columns=columns)


def company(companions: Iterable[str]) -> list[str]:
    """The arms that judge these companions: each alone and beside the reset.

    Raises ValueError for an unknown one.
    """
    for unknown in set(companions) - set(COMPANIONS):
        raise ValueError(f"unknown companion {unknown!r}" + near(unknown, COMPANIONS))
    alone = [{}, *(COMPANIONS[c] for c in companions)]
    return [name(reset | changes) for reset in ({}, GUIDE) for changes in alone]


def configs(
    arms: Iterable[str], instead: Mapping[str, str] | None = None
) -> dict[str, TrainConfig]:
    """{arm: config} of arms of the `grid`; ``instead`` puts another one in an arm's place.

    Raises ValueError for an unknown arm.
    """
    known, instead = grid(), dict(instead or {})
    for arm in (*arms, *instead, *instead.values()):
        if arm not in known:
            raise ValueError(f"unknown arm {arm!r}" + near(arm, known))
    return {arm: known[instead.get(arm, arm)] for arm in arms}


def second_bed() -> TrainConfig:
    """The small bed on digits: 4 tokens a picture, so 392 a step and an N/K of 3.06."""
    return replace(HOME, dataset="digits", batch_size=98)


def carried(
    config: TrainConfig, instead: Mapping[str, str] | None = None
) -> dict[str, TrainConfig]:
    """Arms that ask on other data, of this ``config``, whether collapse, cause and cure are there.

    "baseline": no reset; "frozen encoder": the cause taken away; "reset": the guide's, with its
    threshold in hits; "reset, in shares": the same setting at home, as a multiple of N/K.
    ``instead`` puts another one in an arm's place.
    """
    arms = {
        "baseline": config,
        "frozen encoder": replace(config, freeze_encoder_at=0),
        "reset": replace(config, **GUIDE),
        "reset, in shares": replace(config, **TRAVELLERS["guide, in shares"]),
    }
    return {arm: arms[(instead or {}).get(arm, arm)] for arm in arms}


def conclusion(row) -> str:
    """A row of `judged` in a sentence, after the companion's name."""
    adds = {
        "supported": "it adds to the reset",
        "refuted": "it adds nothing that matters to the reset",
        "undecided": "whether it adds to the reset is undecided",
    }
    alone, beside, more = (effects.points(*row[c]) for c in ("alone", "beside", "more"))
    return (
        f"alone {alone}; beside the reset {beside}: {adds[row['adds']]}. Interaction {more}: that "
        f"they work together is **{row['verdict']}**, over {row['seeds']} seeds."
    )
