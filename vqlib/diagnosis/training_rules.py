"""Rules on what surrounds the codebook: encoder, drift, loss, evaluation, processes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from vqlib.diagnosis.logs import Log
from vqlib.diagnosis.usage_rules import LOW, in_use
from vqlib.findings import Evidence, Finding, clear, fired, unknown

ALIKE, RATHER_ALIKE = 0.95, 0.85  # the guide's levels of pairwise similarity
COLLAPSED_SIMILARITY, COLLAPSED_STD = 0.9, 0.01
FAST = 20  # steps: outputs that leave their cell sooner outrun any reset's grace
FAST_DEGREES = 0.5  # a step, where the size of a cell is not known
SPIKE, SPIKES = 4.0, 3  # times the running median; that many are a pattern
LOSS_LOOKS_SMALL = 0.01
JUMP = 0.05  # of the codebook
NEAR, AROUND = 3, 20  # steps after a validation; tens of steps in which the jump falls back


def encoder_collapse(log: Log) -> Finding:
    name = "encoder-collapse"
    similarity, std = log.late("encoder_similarity"), log.late("encoder_std")
    if similarity is None:
        return unknown(name, "Encoder outputs were not compared.",
                       "encoder_similarity: usage.pairwise_similarity of 100 outputs")  # fmt: skip
    share = in_use(log)
    certain = similarity.value > COLLAPSED_SIMILARITY and std is not None and (
        std.value < COLLAPSED_STD)  # fmt: skip
    if not certain and similarity.value < RATHER_ALIKE:
        return clear(name, similarity, std)
    told_apart = share is not None and share.value >= LOW
    grave = (certain or similarity.value > ALIKE) and not told_apart
    if told_apart:
        cause = "Outputs share a common offset, yet the codes tell them apart."
        remedy = (
            "nothing while the codes are in use; compare after subtracting the mean: "
            "usage.pairwise_similarity(z, centered=True)"
        )
    else:
        cause = "The encoder maps different inputs to nearly one direction."
        remedy = (
            f"mend the encoder first: lower its learning rate{_tenth(log)}, lower beta, normalise "
            "its inputs; a reset cannot split outputs that are equal"
        )
    return fired(name, "critical" if grave else "note" if told_apart else "warning",
                 similarity, std, share, cause=cause, remedy=remedy)  # fmt: skip


def _tenth(log: Log) -> str:
    rate = log.settings.learning_rate
    return f" ({rate:g} to {rate / 10:g})" if rate else ""


def encoder_drift(log: Log) -> Finding:
    name = "encoder-drift"
    drift, error = log.late("drift"), log.late("cosine_error")
    if drift is None:
        return unknown(name, "The encoder's movement was not measured.",
                       "drift: degrees a step that outputs on fixed inputs turn (vqlib.train "
                       "records it)")  # fmt: skip
    leaves = None
    if error is not None and drift.value > 0:
        radius = math.degrees(math.acos(max(-1.0, min(1.0, 1 - error.value))))
        leaves = Evidence("outputs leave their cell in", radius / drift.value, "steps",
                          "angle to the code over drift")  # fmt: skip
    fast = leaves.value < FAST if leaves is not None else drift.value > FAST_DEGREES
    share = in_use(log)
    if not fast or drift.value == 0:
        return clear(name, drift, leaves)
    harmed = share is not None and share.value < LOW
    return fired(
        name, "warning" if harmed else "note", drift, leaves, share,
        cause="Outputs move on faster than codes without hits, which do not move at all, can be "
        "found again.",
        remedy="lower the learning rate" + _tenth(log) + " or let it fall at the end; resets bring "
        "codes back, a smaller drift keeps them",
    )  # fmt: skip


def unstable_training(log: Log) -> Finding:
    name = "unstable-training"
    column = next((c for c in ("recon_loss", "commit_loss") if log.has(c)), None)
    if column is None:
        return unknown(name, "No loss is in the data.", "recon_loss")
    train = log.split("train")
    loss = train[column].replace(np.inf, np.nan)
    broken = _broken(train, column)
    calm = loss.rolling(21, min_periods=3, center=True).median()
    settled = loss.iloc[len(loss) // 10 :]
    spikes = int((settled > SPIKE * calm.loc[settled.index]).sum())
    end, best = log.late(column), float(calm.min())
    counted = Evidence("spikes", spikes, "rows", f"{column} above {SPIKE:g} x its running median")
    if broken is None and spikes < SPIKES and not end.value > SPIKE * best:
        return clear(name, end, counted)
    grave = broken is not None or end.value > SPIKE * best
    return fired(
        name, "critical" if grave else "warning", broken, end,
        Evidence("lowest running median", best, "", column), counted,
        cause="The loss stops being finite or rises far above what it had reached: steps are too "
        "large, or resets tear codes away faster than the decoder learns them.",
        remedy="lower the learning rate" + _tenth(log) + ", warm up longer, reset every 10 steps "
        "and below a lower threshold",
    )  # fmt: skip


def _broken(train: pd.DataFrame, column: str) -> Evidence | None:
    """How many last rows hold no finite loss, in a column that was filled until then."""
    finite = np.isfinite(train[column].to_numpy())
    last = int(np.flatnonzero(finite)[-1])
    if finite[-1] or finite[:last].mean() < 0.9:
        return None
    return Evidence(f"{column} not finite", len(finite) - 1 - last, "rows",
                    f"train, after step {int(train['step'].iloc[last])} to the end")  # fmt: skip


def loss_hides_collapse(log: Log) -> Finding:
    name = "loss-hides-collapse"
    loss, share = log.late("commit_loss"), in_use(log)
    if loss is None or share is None:
        return unknown(name, "The quantizer's loss or its use is not in the data.", "commit_loss")
    if share.value >= LOW or loss.value >= LOSS_LOOKS_SMALL:
        return clear(name, loss)
    return fired(
        name, "note", loss, log.late("cosine_error"), share,
        cause="The quantizer's loss is a mean over all elements of vectors that are near one "
        "another: it is small whatever the codebook does.",
        remedy="log 1 - cosine between outputs and codes, and used codes, beside the loss",
    )  # fmt: skip


def evaluation_changes_counts(log: Log) -> Finding:
    name = "evaluation-changes-counts"
    change = log.late("eval_change", "val")
    if change is not None:
        if change.value == 0:
            return clear(name, change)
        return _evaluation_learns(name, change)
    jumps = _jumps_after_validation(log)
    if jumps is None:
        return unknown(name, "Training rows around validations are too sparse.",
                       "train rows each step or so around 3 validations, or eval_change "
                       "(vqlib.watch measures it)")  # fmt: skip
    if jumps[0].value >= JUMP and jumps[1].value >= 0.6:
        return _evaluation_learns(name, *jumps)
    return clear(name, *jumps)


def _evaluation_learns(name: str, *evidence: Evidence) -> Finding:
    return fired(
        name, "critical", *evidence,
        cause="A validation pass updates the quantizer's counts: codes that it does not use are "
        "reset at the next training step.",
        remedy="call model.eval() before validation, and update counts and codes only "
        "`if self.training`",
    )  # fmt: skip


def _jumps_after_validation(log: Log) -> tuple[Evidence, Evidence] | None:
    """Median jump of use after validations that falls back, and how many exceed chance.

    The jump is the use in the 3 steps after a moment less that in the 3 before, over K, and
    less again that 20 steps later. The same at all other moments says what chance does.
    """
    size, train = log.settings.codebook_size, log.split("train")
    moments = log.split("val")["step"].to_numpy()
    if size is None or not log.has("utilization") or len(train) < 4 * AROUND:
        return None
    use = pd.Series(train["utilization"].to_numpy(), index=train["step"].to_numpy())
    jump = _peak_above(use)
    after = jump.reindex(moments).dropna()
    rest = jump.drop(after.index).dropna()
    if len(after) < 3 or len(rest) < AROUND:
        return None
    usual = float(rest.quantile(0.95))
    window = f"{len(after)} validations"
    return (
        Evidence("rise of use after a validation, gone 20 steps later",
                 float(after.median()), "of the codebook", f"median of {window}"),
        Evidence("rises above what 95 % of other moments show", float((after > usual).mean()),
                 f"of {window}", f"there at most {usual:.3g}"),
    )  # fmt: skip


def _peak_above(use: pd.Series) -> pd.Series:
    """At each step: the use just after it less the higher of that before and of that later on.

    Rows a step apart or nearly: where steps are wider than 3, there is nothing to see.
    """
    steps = np.arange(int(use.index[0]), int(use.index[-1]) + 1)
    if len(steps) > 3 * len(use):
        return pd.Series(dtype=float)
    even = use.reindex(steps).interpolate(limit=NEAR)
    before = even.rolling(NEAR).median()
    after = even.rolling(NEAR).max().shift(-NEAR)
    later = even.rolling(NEAR).median().shift(-AROUND)
    return after - np.maximum(before, later)


def ranks_disagree(log: Log) -> Finding:
    name = "ranks-disagree"
    if not log.has("rank_difference"):
        return unknown(name, "One history shows one process.",
                       "vqlib.audit(quantizer), which runs two processes")  # fmt: skip
    worst = log.late("rank_difference")
    if worst.value == 0:
        return clear(name, worst)
    return fired(
        name, "critical", worst,
        cause="Processes draw or count for themselves, so that each learns its own codebook.",
        remedy="sum counts and sums over ranks, and broadcast the rows of a reset from rank 0",
    )  # fmt: skip


RULES = (encoder_collapse, encoder_drift, unstable_training, loss_hides_collapse,
         evaluation_changes_counts, ranks_disagree)  # fmt: skip
