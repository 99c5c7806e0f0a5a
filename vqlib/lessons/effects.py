"""Effects paired by seed, their bootstrap intervals, and the rules that judge a claim by them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from scipy.special import ndtr, stdtrit

from vqlib.lessons.claims import ARMS, HYPOTHESES
from vqlib.training.experiments import interval

MARGIN = 5.0  # points of utilization; an effect below it does not matter here
FEWEST = 5  # seeds that give an interval
RESAMPLES = 4000


def bootstrap(values, confidence: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) by the expanded percentile bootstrap.

    Hesterberg 2015, The American Statistician 69, 371-386.

    Quantiles of the means of resamples, taken further out the fewer values there are, by as much
    as Student's t is wider than the normal: the plain percentiles are too narrow for few seeds,
    see `coverage`. The interval cannot leave the range of the values.

    ``values``: (n,), one a seed. Low and high are NaN below `FEWEST` values, where even the
    range of all values holds the mean too seldom. The draws are fixed: same values, same interval.
    """
    x = np.asarray(values, dtype=float)
    if len(x) < FEWEST:
        return float(x.mean()), math.nan, math.nan
    low, high = np.quantile(_weights(len(x)) @ x, _tails(len(x), confidence))
    return float(x.mean()), float(low), float(high)


def coverage(seeds: int, trials: int = 1000, confidence: float = 0.95) -> dict[str, float]:
    """How often intervals over so many ``seeds`` hold the true mean, on normal numbers.

    Of the expanded percentile bootstrap, of the plain one, and of Student's t.
    """
    x = np.random.default_rng(1).normal(size=(trials, seeds))
    means = x @ _weights(seeds).T
    plain = (1 - confidence) / 2, (1 + confidence) / 2
    intervals = {
        "expanded": np.quantile(means, _tails(seeds, confidence), axis=1),
        "plain": np.quantile(means, plain, axis=1),
        "t": np.array([interval(row, confidence)[1:] for row in x]).T,
    }
    return {n: float(((low <= 0) & (high >= 0)).mean()) for n, (low, high) in intervals.items()}


def _weights(n: int) -> np.ndarray:
    """(RESAMPLES, n): how often a resample of ``n`` values drew each, over n."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n


def _tails(n: int, confidence: float) -> tuple[float, float]:
    """The expanded quantiles of resampled means of ``n`` values."""
    t = stdtrit(n - 1, (1 + confidence) / 2)
    tail = float(ndtr(-math.sqrt(n / (n - 1)) * t))
    return tail, 1 - tail


def paired(
    table: pd.DataFrame, value: str = "utilization", *, scale: float = 100, reference="baseline"
) -> pd.DataFrame:
    """Effect of each arm: its ``value`` minus the reference's of the same seed, times ``scale``.

    ``table``: columns ``arm``, ``seed`` and ``value``. Gives, indexed by arm in the table's order,
    ``mean``, ``low`` and ``high`` (`bootstrap`), and ``values``, a tuple in order of the seeds.
    Seeds that have no row of one of the two are left out, and so is an arm without any other.
    """
    wide = table.pivot(index="seed", columns="arm", values=value).sort_index()
    arms = [name for name in dict.fromkeys(table["arm"]) if name != reference]
    seeds = table.groupby("arm")["seed"].agg(set)
    shared = {name: sorted(seeds[name] & seeds[reference]) for name in arms}
    differ = {n: wide.loc[s, n] - wide.loc[s, reference] for n, s in shared.items() if s}
    return table_of({name: scale * values for name, values in differ.items()})


def table_of(effects: Mapping[str, object]) -> pd.DataFrame:
    """Rows as of `paired` from {name: values, one a seed}."""
    rows = {n: (*bootstrap(v), tuple(float(x) for x in v)) for n, v in effects.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high", "values"])


def verdict(low: float, high: float, sign: int) -> str:
    """Of a claim that predicts an effect of this ``sign``, by the interval in points.

    "refuted": even the end of the interval that favours the claim is less than `MARGIN` in its
    direction; "supported": all of it lies on the claim's side of 0; else "undecided".
    """
    if math.isnan(low):
        return "undecided"
    worst, best = sorted((sign * low, sign * high))
    if best < MARGIN:
        return "refuted"
    return "supported" if worst > 0 else "undecided"


def role(low: float, high: float, lost: float) -> str:
    """The role of a cause, by the interval of its intervention and the points ``lost``.

    "drives": changing it alone gives back at least half of what the collapse took. "no effect":
    all of the interval is within `MARGIN` of 0; "modulates": it excludes 0; else "undecided".
    """
    if math.isnan(low):
        return "undecided"
    if low > -MARGIN and high < MARGIN:
        return "no effect"
    if low >= lost / 2:
        return "drives"
    return "modulates" if low > 0 or high < 0 else "undecided"


def judge(effects: pd.DataFrame, lost: float) -> pd.DataFrame:
    """One row a hypothesis: its decisive arm's effect, ``verdict``; and its cause's ``role``.

    A cause drives if its decisive arm drives. Otherwise it modulates if any of its arms drives or
    modulates, and it has no effect if none of them has one. If nothing intervened, the role is
    "observed". ``shown_by`` is the arm that showed the role.

    ``effects``: rows as of `paired`, of every arm of `HYPOTHESES`. ``lost``: points of
    utilization that the baseline lost.
    """
    rows = []
    for key, h in HYPOTHESES.items():
        mean, low, high = effects.loc[h.decisive, ["mean", "low", "high"]]
        found, shown_by = _role_of(h.arms, effects, lost)
        rows.append(
            {
                "key": key,
                "place": h.place,
                "claim": h.claim,
                "cause": h.cause,
                "arm": h.decisive,
                "mean": mean,
                "low": low,
                "high": high,
                "verdict": verdict(low, high, h.sign),
                "role": found,
                "shown_by": shown_by,
            }
        )
    return pd.DataFrame(rows).set_index("key")


def _role_of(arms: tuple[str, ...], effects: pd.DataFrame, lost: float) -> tuple[str, str]:
    if arms[0] not in ARMS:
        return "observed", arms[0]
    roles = {name: role(*effects.loc[name, ["low", "high"]], lost) for name in arms}
    if roles[arms[0]] == "drives":
        return "drives", arms[0]
    strong = [name for name in arms if roles[name] in ("drives", "modulates")]
    if arms[0] in strong:
        return "modulates", arms[0]
    if strong:
        return "modulates", max(strong, key=lambda name: abs(effects.loc[name, "mean"]))
    open_ones = [name for name in arms if roles[name] == "undecided"]
    return ("undecided", open_ones[0]) if open_ones else ("no effect", arms[0])


def bracketed(effect: Iterable[float], form: str) -> str:
    """(mean, low, high) as "+3.1 [+1.0, +5.2]"; without an interval "+3.1"."""
    mean, low, high = (form.format(x) for x in effect)
    return mean if low.endswith("nan") else f"{mean} [{low}, {high}]"


def points(mean: float, low: float, high: float) -> str:
    """An effect as text: "+83.2 points [+80.1, +86.0]"."""
    if math.isnan(low):
        return f"{mean:+.1f} points (too few seeds for an interval)"
    return f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}]"


def conclusion(effects: pd.DataFrame, judged: pd.DataFrame) -> list[str]:
    """Sentences from the intervals alone: what drives, what modulates, when the guide is wrong.

    ``effects``: of every arm; ``judged``: of `judge`.
    """
    modulates = judged["role"] == "modulates"
    gains = effects.loc[judged["shown_by"], "mean"].to_numpy() > 0
    guide = judged[judged["place"] != "ours"]
    causes = {
        "Drives the collapse": judged[judged["role"] == "drives"],
        "Only modulates it, and more codes stay in use with this change": judged[modulates & gains],
        "Only modulates it, and fewer codes stay in use with this change": judged[
            modulates & ~gains
        ],
        "Has no effect": judged[judged["role"] == "no effect"],
        "Undecided here": judged[judged["role"] == "undecided"],
    }
    claims = {
        "The guide is wrong here": guide[guide["verdict"] == "refuted"],
        "The guide is right here": guide[guide["verdict"] == "supported"],
        "This trial cannot decide": guide[guide["verdict"] == "undecided"],
    }

    def cause(row) -> str:
        return f"{row.cause} ({row.shown_by}: {points(*effects.loc[row.shown_by].iloc[:3])})"

    def claim(row) -> str:
        note = (
            "; it only modulates" if (row.verdict, row.role) == ("supported", "modulates") else ""
        )
        return f"{row.place} ({row.claim}{note})"

    lines = [(heading, map(cause, rows.itertuples())) for heading, rows in causes.items()]
    lines += [(heading, map(claim, rows.itertuples())) for heading, rows in claims.items()]
    return [f"**{heading}:** {'; '.join(texts) or 'none'}." for heading, texts in lines]
