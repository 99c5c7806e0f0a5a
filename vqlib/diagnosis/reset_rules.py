"""Rules on dead code reset: its threshold, how often it acts, whether what it makes lives."""

from __future__ import annotations

import pandas as pd

from vqlib.diagnosis.findings import (
    Evidence,
    Finding,
    Severity,
    clear,
    fired,
    not_applicable,
    unknown,
)
from vqlib.diagnosis.logs import Log
from vqlib.diagnosis.remedies import GOOD_EVERY, GOOD_REFILL, GOOD_THRESHOLD
from vqlib.diagnosis.resets import NO_RESET, total_resets, without_resets
from vqlib.diagnosis.shares import LOW, in_use

MAX_RESET_SHARE = 0.10
"""The guide: at most this share of the codebook should be reset at once."""
ROOM = 0.5  # of the uniform share: above it, half the average use is dead
BUSY, FLOOD = 0.05, 0.20  # of the codebook reset in a step; the guide's ideal is at most 10 %
DECLINED = 0.5  # late resets over early ones: below it, they become fewer
ALIVE, HARDLY = 0.25, 0.10  # of resets that survive
MANY = 2.0  # resets over the run, times K: enough to judge by
AGAIN = 0.9  # of resets that hit a code reset before
PREMATURE = 0.5  # of all resets: with so many, the count cannot have been refilled


def threshold_above_share(log: Log) -> Finding:
    name, s = "threshold-above-share", log.settings
    if s.dead_code_threshold == 0:
        return not_applicable(name, "The reset is off (dead_code_threshold 0).")
    if s.dead_code_threshold is None or s.share is None:
        missing = [
            n
            for n in ("dead_code_threshold", "tokens_per_step", "codebook_size")
            if getattr(s, n) is None
        ]
        return unknown(
            name, "The threshold cannot be compared with the uniform share N/K.", ", ".join(missing)
        )
    over = s.dead_code_threshold / s.share
    ceiling = min(1.0, 1 / over)
    evidence = (
        Evidence("dead_code_threshold", s.dead_code_threshold, "hits a step"),
        Evidence("uniform share N/K", s.share, "hits a step"),
        Evidence("codes that can stay above it", ceiling, "of the codebook", "at most"),
    )
    if over <= ROOM:
        return clear(name, *evidence)
    return fired(
        name,
        "critical" if over > 1 else "warning",
        *evidence,
        cause=f"dead_code_threshold {s.dead_code_threshold:g} is {over:.1f} x the uniform share of "
        f"{s.share:.4g} hits a step; "
        + (
            f"counts add up to N a step: at most {ceiling:.0%} of the codebook can stay above it."
            if over > 1
            else "a code used less than about the average counts as dead."
        ),
        remedy=f"use {GOOD_THRESHOLD * s.share:.2g}, or relative={GOOD_THRESHOLD:g}: "
        f"DeadCodeReset(threshold={GOOD_THRESHOLD:g}, relative=True)",
    )


def reset_churn(log: Log) -> Finding:
    name, size = "reset-churn", log.settings.codebook_size
    rate = _rate(log)
    if rate is None or size is None:
        return without_resets(name, log, "resets" if size else "resets and codebook_size")
    third = max(1, len(rate) // 3)
    early, late = float(rate.iloc[:third].mean()), float(rate.iloc[-third:].mean())
    steps = rate.index
    evidence = (
        Evidence(
            "resets",
            late / size,
            "of the codebook a step",
            f"steps {steps[-third]:.0f} to {steps[-1]:.0f}",
        ),
        Evidence(
            "at first",
            early / size,
            "of the codebook a step",
            f"steps {steps[0]:.0f} to {steps[third - 1]:.0f}",
        ),
        Evidence(
            "at most",
            float(rate.max()) / size,
            "of the codebook a step",
            f"step {rate.idxmax():.0f}",
        ),
        _again(log),
    )
    if late < BUSY * size or late < DECLINED * early:
        if rate.max() <= MAX_RESET_SHARE * size:
            return clear(name, *evidence)
        return fired(
            name,
            "note",
            *evidence,
            cause="One step reset more than a tenth of the codebook, all of it to be learned anew.",
            remedy="nothing, if that was at the start; otherwise " + _calmer(log),
        )
    severity: Severity = "critical" if late >= FLOOD * size else "warning"
    return fired(
        name,
        severity,
        *evidence,
        cause="Resets do not become fewer: codes are moved again before inputs find them.",
        remedy=_calmer(log),
    )


def _calmer(log: Log) -> str:
    s = log.settings
    if s.share is None:
        return "lower the threshold to a tenth of the uniform share N/K, and reset every 5 steps"
    good, told = GOOD_THRESHOLD * s.share, []
    if s.dead_code_threshold is None or s.dead_code_threshold > good:
        now = "" if s.dead_code_threshold is None else f" (now {s.dead_code_threshold:g})"
        told.append(f"lower the threshold{now} to {good:.2g} hits a step")
    told.append(f"refill the count to {GOOD_REFILL * s.share:.4g}")
    if (s.reset_interval or 1) < GOOD_EVERY:
        told.append(f"reset every {GOOD_EVERY} steps")
    return ", ".join([*told, "and let the learning rate fall at the end"])


def _rate(log: Log) -> pd.Series | None:
    """Codes reset a step, indexed by step; rows may lie several steps apart."""
    if not log.has("resets") or total_resets(log).value == 0:
        return None
    rows = log.rows("resets").set_index("step")["resets"]
    apart = pd.Series(rows.index, index=rows.index).diff().fillna(rows.index[0]).clip(lower=1)
    return rows / apart


def reset_does_not_survive(log: Log) -> Finding:
    name, size = "reset-does-not-survive", log.settings.codebook_size
    total = total_resets(log)
    if total is None or size is None:
        return without_resets(name, log, "resets" if size else "resets and codebook_size")
    if total.value == 0:
        return not_applicable(name, NO_RESET)
    lived, again, share = _lived(log), _again(log), in_use(log)
    early = _share_of_resets(log, "premature", "reset again before a refilled count could fall")
    if early is not None and early.value > 0:
        futile = early.value >= PREMATURE or (lived is not None and lived.value < HARDLY)
        return fired(
            name,
            "critical" if futile else "warning",
            early,
            total,
            lived,
            cause="Codes were reset again sooner than a refilled count could fall below the "
            "threshold: the reset does not refill the count, or something overwrites it.",
            remedy="write the count together with the code: cluster_size[dead] = refill",
        )
    if total.value < MANY * size:
        return clear(name, total, lived)
    if lived is not None:
        if lived.value >= ALIVE:
            return clear(name, lived, total)
        futile = lived.value < HARDLY
    elif again is None or share is None:
        return unknown(name, "What became of reset codes was not recorded.", "survived")
    else:
        futile = again.value >= AGAIN and share.value < LOW
        if not futile:
            return clear(name, again, total, share)
    if _refilled_to_the_threshold(log):
        why = (
            "Their count is refilled to the threshold and no further, so a code that is not hit at "
            "once is dead again."
        )
        remedy = "refill the count to several times the threshold"
    else:
        why = (
            "Either the count was not refilled, or the same step's update overwrote the reset, or "
            "the threshold is too high to stay above."
        )
        remedy = (
            "reset codebook, running sums and count together, after the update; vqlib.audit("
            "quantizer) shows which of them is missing"
        )
    return fired(
        name,
        "critical" if futile else "warning",
        lived,
        again,
        total,
        share,
        cause=f"Codes are reset again before they are used. {why}",
        remedy=remedy + _reachable(log),
    )


def _refilled_to_the_threshold(log: Log) -> bool:
    threshold, refill = log.settings.dead_code_threshold, log.settings.reset_refill
    return bool(threshold) and refill is not None and refill <= threshold


def _reachable(log: Log) -> str:
    s = log.settings
    if s.share and s.dead_code_threshold and s.dead_code_threshold > s.share:
        return f"; but first lower the threshold to {GOOD_THRESHOLD * s.share:.2g} hits a step"
    return ""


def _again(log: Log) -> Evidence | None:
    return _share_of_resets(log, "re_resets", "reset before")


def _share_of_resets(log: Log, column: str, words: str) -> Evidence | None:
    if not log.has(column) or not (total := total_resets(log)) or total.value == 0:
        return None
    share = log.split("train")[column].sum() / total.value
    return Evidence(words, share, "of all resets", total.window)


def _lived(log: Log) -> Evidence | None:
    """Survival over the second half, each row weighted by its resets."""
    if not log.has("survived"):
        return None
    rows = log.split("train").dropna(subset=["survived", "resets"])
    rows = rows.tail(max(1, len(rows) // 2))
    weight = rows["resets"] + 1e-9
    mean = float((rows["survived"] * weight).sum() / weight.sum())
    return log.number("survived", mean, rows, "train", "mean")


RULES = (threshold_above_share, reset_churn, reset_does_not_survive)
