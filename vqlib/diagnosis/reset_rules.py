"""Rules on dead code reset: its threshold, how often it acts, whether what it makes lives."""

from __future__ import annotations

import math

import numpy as np
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
from vqlib.diagnosis.logs import Log, Settings
from vqlib.diagnosis.usage_rules import (
    COLLAPSED,
    FEW_ROWS,
    GOOD_EVERY,
    GOOD_REFILL,
    GOOD_THRESHOLD,
    KEEP_ON,
    LOW,
    SILENT,
    in_use,
    kind,
    remedy_reset,
    resets_ended,
)

MAX_RESET_SHARE = 0.10
"""The guide: at most this share of the codebook should be reset at once."""

ROOM = 0.5  # of the uniform share: above it, half the average use is dead
BUSY, FLOOD = 0.05, 0.20  # of the codebook reset in a step; the guide's ideal is at most 10 %
DECLINED = 0.5  # late resets over early ones: below it, they become fewer
ALIVE, HARDLY = 0.25, 0.10  # of resets that survive
MANY = 2.0  # resets over the run, times K: enough to judge by
AGAIN = 0.9  # of resets that hit a code reset before
NEAR_SHARE = 0.25  # threshold over N/K
ONCE = 4.0  # times the resets of later rows: a start happens once
THROWN = 0.10  # of the codebook: in use in the first step and reset in it
EXPLODED = 10.0  # times the median norm of used codes
COPIES, HARMFUL_COPIES, MANY_COPIES = 0.02, 0.10, 0.50  # of the codebook
PREMATURE = 0.5  # of all resets: with so many, the count cannot have been refilled
AFTER = (
    "reset after the step's update, not before it; with a code, set its running sum (vector x "
    "count) and its count; vqlib.audit(quantizer) shows which of them is missing"
)
SHRUNK = (
    "Codes that the first batch uses shrink at once: a code is a running sum divided by a running "
    "count, and the sum starts too small for the count.",
    "Start each running sum at its code x its count.",
)
FEW_SHRUNK, MOST_SHRUNK = 0.05, 0.5  # of the codes hit in the first step
NO_RESET = "No reset happened in this run: it is off, or none was recorded."


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
        return _no_resets(name, log, "resets" if size else "resets and codebook_size")
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


def reset_never_fires(log: Log) -> Finding:
    name, s, share = "reset-never-fires", log.settings, in_use(log)
    total = _total(log)
    if total is None and s.dead_code_threshold != 0:
        return unknown(name, "Resets were not counted.", "resets, or dead_code_threshold")
    if (end := resets_ended(log)) is not None:
        return not_applicable(name, f"It fired until step {end.last:.0f}, and then no more.")
    last = None
    if total is not None and total.value > 0:
        last = _last_of_few(log)
        if last is None:
            return clear(name, total)
    threshold = (
        None
        if s.dead_code_threshold is None
        else Evidence("dead_code_threshold", s.dead_code_threshold, "hits a step")
    )
    if s.below_threshold and s.codebook_size and s.below_threshold >= COPIES * s.codebook_size:
        return fired(
            name,
            "critical",
            Evidence("codes below the threshold", s.below_threshold, f"of {s.codebook_size} codes"),
            total,
            last,
            threshold,
            share,
            cause="Codes are dead by the layer's own threshold, but none moves. Its reset is not "
            "called, waits for something that cannot happen, or is overwritten in the same step.",
            remedy=AFTER,
        )
    if share is None:
        return unknown(name, "Whether codes are dead is not known.", "codebook_size, K")
    if share.value >= LOW:
        return clear(name, total, threshold, share)
    cause = _why_never(log) if last is None else _why_no_more(log, last)
    return fired(name, "warning", total, last, threshold, share, cause=cause, remedy=_earlier(log))


def _last_of_few(log: Log) -> Evidence | None:
    """The last reset, if there were hardly any and it is long ago. None: not so, or untold.

    A start may leave a code without inputs, which is moved at once; that is no reset that acts.
    """
    rows = log.rows("resets")
    steps = rows["step"].to_numpy()
    moved = np.flatnonzero((rows["resets"] > 0).to_numpy())
    if not 0 < len(moved) < FEW_ROWS or len(rows) - 1 - moved[-1] < FEW_ROWS:
        return None
    pauses = np.diff(steps[moved], prepend=steps[0])
    longest = max(pauses.max(), _wait(log.settings) or 0, log.settings.reset_interval or 1)
    if steps[-1] - steps[moved[-1]] < SILENT * longest:
        return None
    return Evidence("step of the last reset", float(steps[moved[-1]]))


def _why_no_more(log: Log, last: Evidence) -> str:
    passed = log.rows("resets")["step"].iloc[-1] - last.value
    return (
        f"Hardly any code was ever moved, and none in the last {passed:.0f} steps, although few "
        "are in use. The reset is called no more, or waits for counts that do not come."
    )


def resets_ended_too_early(log: Log) -> Finding:
    name, total = "resets-ended-too-early", _total(log)
    if total is None or not log.has("used_codes"):
        return unknown(name, "Resets were not counted.", "resets and used_codes")
    if total.value == 0:
        return not_applicable(name, NO_RESET)
    end, share = resets_ended(log), in_use(log)
    if end is None:
        return clear(name, total)
    grave = share is not None and share.value < COLLAPSED
    return fired(
        name,
        "critical" if grave else "warning",
        Evidence("step of the last reset", end.last),
        Evidence("codes in use until then", end.before),
        Evidence("codes in use at the end", end.after),
        Evidence("steps until use had fallen", end.steps),
        cause=end.sentence,
        remedy=KEEP_ON,
    )


def _earlier(log: Log) -> str:
    """A reset that acts; one that is on already only acts sooner."""
    s = log.settings
    if not s.dead_code_threshold:
        return remedy_reset(log)
    sooner = f" to {GOOD_THRESHOLD * s.share:.2g} hits a step" if s.share else ""
    check = "check with vqlib.audit(quantizer) that the reset acts"
    if s.share and s.dead_code_threshold >= GOOD_THRESHOLD * s.share:
        return check
    return f"raise the threshold{sooner}, or lower the decay; {check}"


def _why_never(log: Log) -> str:
    s = log.settings
    if s.dead_code_threshold is None:
        return "No reset happened although codes were unused; whether one is on is not in the data."
    if s.dead_code_threshold == 0:
        return "The reset is off: no count is below 0, so a threshold of 0 never fires."
    if (wait := _wait(s)) is not None:
        if (passed := _low_for(log)) > wait + (s.reset_interval or 1):
            return (
                f"Few codes have been in use for {passed:.0f} steps. The count of an unused code "
                f"falls from the uniform share of {s.share:.4g} below {s.dead_code_threshold:g} in "
                f"{wait:.0f}: the reset is probably not called, or overwritten in the same step."
            )
        return (
            f"From the uniform share of {s.share:.4g}, the count of an unused code needs "
            f"{wait:.0f} steps to fall below {s.dead_code_threshold:g} at decay {s.decay:g}."
        )
    return (
        "Codes are unused, but no reset happened. Their counts may never fall below the "
        "threshold, or the reset may not be called."
    )


def _wait(s: Settings) -> float | None:
    """Steps in which the count of an unused code falls from N/K below the threshold."""
    threshold = s.dead_code_threshold
    if s.share and s.decay and 0 < s.decay < 1 and threshold and threshold < s.share:
        return math.log(s.share / threshold) / -math.log(s.decay)
    return None


def _low_for(log: Log) -> float:
    """Steps since more than `LOW` of the codes were last in use in a training row."""
    rows = log.rows("utilization")
    if rows.empty:
        return 0.0
    used = rows.loc[rows["utilization"] >= LOW, "step"]
    return float(rows["step"].iloc[-1] - (rows["step"].iloc[0] if used.empty else used.iloc[-1]))


def reset_does_not_survive(log: Log) -> Finding:
    name, size = "reset-does-not-survive", log.settings.codebook_size
    total = _total(log)
    if total is None or size is None:
        return _no_resets(name, log, "resets" if size else "resets and codebook_size")
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


def cold_start(log: Log) -> Finding:
    name, size = "cold-start", log.settings.codebook_size
    train, small = log.split("train"), log.settings.start_shrunk
    if small is not None and small > FEW_SHRUNK:
        return fired(
            name,
            "critical" if small > MOST_SHRUNK else "warning",
            Evidence("shrunk to less than half", small, "of the codes hit", "train, step 1"),
            cause=SHRUNK[0],
            remedy=SHRUNK[1],
        )
    if size is None or not log.has("resets") or not log.has("used_codes"):
        return _no_resets(name, log, "resets and used_codes of the first steps")
    first = train.dropna(subset=["used_codes", "resets"]).head(1)
    if first.empty or first["step"].iloc[0] > 2:
        return unknown(name, "The first steps are not in the data.", "a row of step 1")
    s = log.settings
    if s.share and s.dead_code_threshold and s.dead_code_threshold > NEAR_SHARE * s.share:
        return unknown(
            name,
            "The threshold is so close to the uniform share that even codes in use "
            "fall below it, however the counts start.",
            "vqlib.audit(quantizer)",
        )
    both = float((first["used_codes"] + first["resets"]).iloc[0]) - size
    evidence = (
        log.number("used_codes", float(first["used_codes"].iloc[0]), first, "train"),
        log.number("resets", float(first["resets"].iloc[0]), first, "train"),
        Evidence(
            "codes in use and yet reset",
            max(0.0, both / size),
            "of the codebook",
            "at least, in that step",
        ),
    )
    usual = float(train["resets"].iloc[1:20].median())  # NaN where there is no other row
    if both <= THROWN * size or evidence[1].value < ONCE * usual:
        return clear(name, *evidence)
    return fired(
        name,
        "critical",
        *evidence,
        cause="Counts probably start at 0. A code then needs threshold / (1 - decay) hits in the "
        "first batch or it is reset, and the codebook just made is thrown away.",
        remedy="start cluster_size at the first batch's counts"
        + (f" (about {s.share:.4g})" if s.share else "")
        + ", or hold the reset back for 1 / (1 - decay) steps",
    )


def first_step_explosion(log: Log) -> Finding:
    name = "first-step-explosion"
    longest = log.highest("longest_code", log.best_split("longest_code"))
    if longest is None:
        needs = "longest_code (vqlib.watch measures it if the layer keeps counts), or vqlib.audit"
        return unknown(name, "The lengths of codes were not measured.", needs)
    if longest.value < EXPLODED:
        return clear(name, longest)
    return fired(
        name,
        "critical",
        longest,
        cause="A code is probably a running sum divided by a count that starts at 0. Without a hit "
        "in step 1 it becomes enormous, and it is never chosen again.",
        remedy="start the running sum at codebook x count, with that same count",
    )


def duplicate_codes(log: Log) -> Finding:
    name, size = "duplicate-codes", log.settings.codebook_size
    copies = log.highest("duplicates", log.best_split("duplicates"))
    if copies is None or size is None:
        needs = "duplicates (vqlib.watch counts them), or vqlib.audit(quantizer)"
        return unknown(name, "Codes were not compared with one another.", needs)
    if copies.value < COPIES * size:
        return clear(name, copies)
    share = in_use(log)
    harmed = share is not None and share.value < LOW and copies.value >= HARMFUL_COPIES * size
    grave = harmed and copies.value >= MANY_COPIES * size
    return fired(
        name,
        "critical" if grave else "warning" if harmed else "note",
        copies,
        share,
        cause="Several codes hold the same vector, so the decoder cannot tell them apart."
        if log.settings.gumbel
        else "If several codes hold the same vector, argmax finds only the first; the others are "
        "dead from the start.",
        remedy=own.remedy
        if (own := kind(log))
        else "draw donors without replacement and from more than one cell: "
        "DeadCodeReset(donors='batch', distinct=True)",
    )


def _rate(log: Log) -> pd.Series | None:
    """Codes reset a step, indexed by step; rows may lie several steps apart."""
    if not log.has("resets") or _total(log).value == 0:
        return None
    rows = log.rows("resets").set_index("step")["resets"]
    apart = pd.Series(rows.index, index=rows.index).diff().fillna(rows.index[0]).clip(lower=1)
    return rows / apart


def _total(log: Log) -> Evidence | None:
    if not log.has("resets"):
        return None
    rows = log.rows("resets")
    return Evidence(
        "resets in all",
        int(rows["resets"].sum()),
        "codes",
        f"train, up to step {int(rows['step'].iloc[-1])}",
    )


def _again(log: Log) -> Evidence | None:
    return _share_of_resets(log, "re_resets", "reset before")


def _share_of_resets(log: Log, column: str, words: str) -> Evidence | None:
    if not log.has(column) or not (total := _total(log)) or total.value == 0:
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


def _no_resets(name: str, log: Log, needs: str) -> Finding:
    total = _total(log)
    if log.settings.dead_code_threshold == 0 or (total is not None and total.value == 0):
        return not_applicable(name, NO_RESET)
    return unknown(name, "Resets were not counted.", needs)


RULES = (
    threshold_above_share,
    reset_churn,
    reset_never_fires,
    resets_ended_too_early,
    reset_does_not_survive,
    cold_start,
    first_step_explosion,
    duplicate_codes,
)
