"""Rules on resets that do not happen: never, hardly ever, or no more."""

from __future__ import annotations

import math

import numpy as np

from vqlib.diagnosis.findings import Evidence, Finding, clear, fired, not_applicable, unknown
from vqlib.diagnosis.logs import Log, Settings
from vqlib.diagnosis.remedies import GOOD_THRESHOLD, KEEP_ON, remedy_reset
from vqlib.diagnosis.resets import FEW_ROWS, NO_RESET, SILENT, resets_ended, total_resets
from vqlib.diagnosis.shares import COLLAPSED, LOW, in_use

BELOW = 0.02  # of the codebook, below its layer's own threshold
AFTER = (
    "reset after the step's update, not before it; with a code, set its running sum (vector x "
    "count) and its count; vqlib.audit(quantizer) shows which of them is missing"
)


def reset_never_fires(log: Log) -> Finding:
    name, s, share = "reset-never-fires", log.settings, in_use(log)
    total = total_resets(log)
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
    if s.below_threshold and s.codebook_size and s.below_threshold >= BELOW * s.codebook_size:
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


def resets_ended_too_early(log: Log) -> Finding:
    name, total = "resets-ended-too-early", total_resets(log)
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


RULES = (reset_never_fires, resets_ended_too_early)
