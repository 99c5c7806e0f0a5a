"""Claims on trial: what papers say of their remedies, and whether it points the same way here.

The direction of an effect is judged, not its size: our codebook, pictures and training are far
smaller than theirs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vqlib.lessons.effects import MARGIN, bootstrap, bracketed
from vqlib.lessons.fronts import MEASURES
from vqlib.training.places import PARENT

BIBLIOGRAPHY = PARENT / "notebooks" / "references.bib"
_ENTRY = re.compile(r"^@\w+\{(\w+),\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", re.MULTILINE)


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper that can come out wrong here.

    Attributes:
        source: its key in the bibliography. claim: in our words. on: its data and codebook.
        arm, against: remedies that are compared. column: the measure.
        rises: whether the claim says that the measure rises.
        differs: what is different here, to be read before "not" is taken for "wrong".
        bed: where it is judged.
    """

    source: str
    claim: str
    on: str
    arm: str
    against: str
    column: str
    rises: bool
    differs: str
    bed: str = "model"


_SMALL = "K 128 and 200 steps"
CLAIMS = (
    Claim(
        "guide",
        "the reset brings unused codes back into use",
        "expected for EEG tokens, not measured by it",
        *("reset", "baseline", "utilization", True),
        "photographs; " + _SMALL,
    ),
    Claim(
        "lancucki2020",
        "codes estimated anew from recent outputs raise the use of the codebook",
        "images and speech",
        *("k-means restart", "baseline", "utilization", True),
        "our restart moves only dead codes; theirs estimates all of them anew; " + _SMALL,
    ),
    Claim(
        "kolesnikov2022",
        "splitting the most used codes fills the codebook (99 % against 0.78 %)",
        "depth maps, K 4,096, as reported with FSQ",
        *("split most used", "baseline", "utilization", True),
        "photographs; " + _SMALL,
    ),
    Claim(
        "kolesnikov2022",
        "and the error falls a little with it (RMSE 0.468 against 0.490)",
        "depth maps, K 4,096, as reported with FSQ",
        *("split most used", "baseline", "error", False),
        "photographs; " + _SMALL,
    ),
    Claim(
        "zheng2023",
        "anchors near the inputs keep every code in use",
        "images",
        *("anchors", "baseline", "utilization", True),
        "our average and our sphere; " + _SMALL,
    ),
    Claim(
        "lu2026stationarity",
        "drift passed on to unselected codes keeps nearly all of them in use",
        "CelebA-HQ",
        *("drift kernel", "baseline", "utilization", True),
        "codes follow an average, not gradients; a kernel of fixed width; " + _SMALL,
    ),
    Claim(
        "lu2026stationarity",
        "and reconstruction is better than plain VQ's",
        "CelebA-HQ",
        *("drift kernel", "baseline", "error", False),
        "codes follow an average, not gradients; a kernel of fixed width; " + _SMALL,
    ),
    Claim(
        "lu2026nsvq",
        "replacing codes and then freezing the encoder lowers the error",
        "ImageNet-128, K 65,536: rFID 2.39 to 2.10 against SimVQ",
        *("staged freezing", "random batch", "error", False),
        "without its embedding loss; the encoder is frozen half-way, far from trained; " + _SMALL,
    ),
    Claim(
        "continuous2026",
        "a warm-up without quantization raises the effective dimension of the codes",
        "3 to 5 dimensions before, 17 to 19 after, at full use",
        *("deferred", "reset", "effective_dimension", True),
        "a warm-up of 100 steps, with no reset after it; " + _SMALL,
    ),
    Claim(
        "continuous2026",
        "and lowers the error (rFID by 17 to 35 %)",
        "as above",
        *("deferred", "reset", "error", False),
        "mean squared error, not rFID; a warm-up of 100 steps; " + _SMALL,
    ),
    Claim(
        "zhang2024",
        "assignment by optimal transport fills the codebook",
        "images",
        *("balanced", "baseline", "utilization", True),
        "codes follow an average; in evaluation each token takes its nearest code; " + _SMALL,
    ),
    Claim(
        "yu2024",
        "an entropy term spreads use over the codebook",
        "video and images, a binary lattice",
        *("entropy loss", "baseline", "utilization", True),
        "a learned codebook, which the term reaches through the encoder alone; " + _SMALL,
    ),
    Claim(
        "fang2025",
        "matching the distributions of codes and inputs fills the codebook",
        "images",
        *("matched moments", "baseline", "utilization", True),
        "one weight, not tuned; codes learn by gradients at the model's own rate; " + _SMALL,
    ),
    Claim(
        "fang2025",
        "and lowers the quantization error",
        "images",
        *("matched moments", "baseline", "error", False),
        "one weight, not tuned; codes learn by gradients at the model's own rate; " + _SMALL,
        bed="latents",
    ),
    Claim(
        "yu2022",
        "codes of few dimensions are used more",
        "ImageNet, K 8,192",
        *("8-dim codes", "baseline", "utilization", True),
        "8 dimensions, not tuned; " + _SMALL,
    ),
    Claim(
        "fifty2025",
        "the rotation trick raises use (2 to 27 %, 15 to 86 %, 27 to 99 %)",
        "VQGAN, ImageNet, use in a batch",
        *("rotation trick", "package", "utilization", True),
        "a small VQ-VAE, no VQGAN; use over the whole validation set; " + _SMALL,
    ),
    Claim(
        "fifty2025",
        "and lowers the error (r-FID 5.0 to 1.1)",
        "VQGAN, ImageNet",
        *("rotation trick", "package", "error", False),
        "mean squared error of a small VQ-VAE, not r-FID of a VQGAN; " + _SMALL,
    ),
    Claim(
        "huh2023",
        "an affine map that all codes share keeps more of them in use",
        "images",
        *("affine", "package", "utilization", True),
        "its decays of 0.99 and 0.9 are long beside 200 steps; " + _SMALL,
    ),
    Claim(
        "zhu2024",
        "a linear layer over a fixed codebook brings all of it into use (1.4 to 100 %)",
        "ImageNet-128, K 65,536",
        *("SimVQ", "package", "utilization", True),
        "it starts at random, not at k-means, and at this rate 200 steps are few; " + _SMALL,
    ),
    Claim(
        "vali2025",
        "gradients through the error's direction lower the error",
        "image and speech coding",
        *("DiVeQ", "package", "error", False),
        "as the package has it, with expiry of dead codes; " + _SMALL,
    ),
    Claim(
        "mentzer2023",
        "a fixed lattice is used nearly whole, without any remedy",
        "images and depth maps",
        *("FSQ", "baseline", "utilization", True),
        "its projections start at random, and at this rate 200 steps are few; " + _SMALL,
    ),
)


def direction(low: float, high: float, sign: int) -> str:
    """Of a claim that predicts an effect of this ``sign``, by its 95 % interval.

    "same direction": all of the interval lies on the claim's side of 0. "not": even the end that
    favours the claim is below `MARGIN` (points of utilization; per cent of all else), and the
    whole is not on its side. "undecided": the rest, and NaN.
    """
    if math.isnan(low):
        return "undecided"
    worst, best = sorted((sign * low, sign * high))
    if worst > 0:
        return "same direction"
    return "not" if best < MARGIN else "undecided"


def changes(table: pd.DataFrame, claim: Claim) -> np.ndarray:
    """(seeds,) what the arm changed, paired by seed: points of utilization, else per cent."""
    on_bed = table[table["bed"] == claim.bed]
    wide = on_bed.pivot(index="seed", columns="arm", values=claim.column)
    arm, against = wide[claim.arm], wide[claim.against]
    if claim.column == "utilization":
        return 100 * (arm - against).to_numpy()
    return 100 * (arm / against - 1).to_numpy()


def trial(table: pd.DataFrame) -> pd.DataFrame:
    """Each of `CLAIMS` with its effect's ``mean``, ``low`` and ``high``, and its ``verdict``.

    ``before`` and ``after`` are the measure's means with the arm that is compared with, and with
    the remedy. ``table``: of `trials.rivals`.
    """
    means = table.groupby(["bed", "arm"]).mean(numeric_only=True)
    rows = []
    for claim in CLAIMS:
        names = ("before", claim.against), ("after", claim.arm)
        ends = {name: means.loc[(claim.bed, arm), claim.column] for name, arm in names}
        mean, low, high = bootstrap(changes(table, claim))
        verdict = direction(low, high, 1 if claim.rises else -1)
        effect = {"mean": mean, "low": low, "high": high, "verdict": verdict}
        rows.append(vars(claim) | ends | effect)
    return pd.DataFrame(rows)


def as_text(judged: pd.DataFrame) -> pd.DataFrame:
    """The `trial` for readers."""
    units = judged["column"].map(lambda c: "points" if c == "utilization" else "%")
    labels = judged["column"].map(lambda c: MEASURES[c].label)
    numbers = judged[["mean", "low", "high"]].to_numpy()
    pairs = zip(numbers, units, strict=True)
    measured = [f"{bracketed(effect, '{:+.1f}')} {unit}" for effect, unit in pairs]
    return pd.DataFrame(
        {
            "paper": judged["source"].map(label),
            "claims that": judged["claim"],
            "on": judged["on"],
            "here": judged["arm"] + " against " + judged["against"] + ", " + labels,
            "from, to": [_ends(row) for row in judged.itertuples()],
            "change": measured,
            "verdict": judged["verdict"],
        }
    )


def _ends(row) -> str:
    show = MEASURES[row.column].form.format
    return f"{show(row.before)}, {show(row.after)}"


def references() -> dict[str, dict[str, str]]:
    """{key: {field: text}} of the bibliography, in its order."""
    entries = _ENTRY.findall(BIBLIOGRAPHY.read_text(encoding="utf-8"))
    return {key: dict(_FIELD.findall(fields)) for key, fields in entries}


def bibliography() -> str:
    """All references as a list in Markdown."""
    lines = []
    for key, entry in references().items():
        where = f" {entry['howpublished']}." if "howpublished" in entry else ""
        if "eprint" in entry:
            where += f" arXiv:{entry['eprint']}."
        title = f" {entry['title']}." if "author" in entry else ""  # else the label has it
        lines.append(f"- **{label(key)}.**{title}{where}")
    return "\n".join(lines)


def label(key: str) -> str:
    """As a text cites an entry: "Roy and Vetterli 2007"; by its title if it names no author."""
    entry = references()[key]
    names = [author.split(",")[0] for author in entry.get("author", "").split(" and ")]
    if not names[0]:
        who = f"“{entry['title']}”,"
    elif len(names) > 2 or names[-1] == "others":
        who = f"{names[0]} et al."
    else:
        who = " and ".join(names)
    return f"{who} {entry['year']}"
