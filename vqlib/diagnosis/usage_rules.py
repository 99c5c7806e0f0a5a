"""Rules on how the codebook is used: collapse, gap, top code, window."""

from __future__ import annotations

import math
from dataclasses import replace

from vqlib.diagnosis.findings import Evidence, Finding, Severity, clear, fired, unknown
from vqlib.diagnosis.logs import Log
from vqlib.diagnosis.remedies import KEEP_ON, kind, remedy_reset
from vqlib.diagnosis.resets import resets_ended, resets_seen
from vqlib.diagnosis.shares import (
    COLLAPSED,
    LOW,
    in_use,
    is_stale,
    uniform,
    utilization_now,
    window_tokens,
)

GAP, WIDE_GAP = 0.10, 0.30  # the guide's target is 10 points
TOP_EXCESS, MOST, NEARLY_ALL = 0.10, 0.50, 0.95  # share of the tokens beyond 1/K, over 1 - 1/K
SMALL = 16  # codes: in a smaller codebook one may well take half
FEW_EFFECTIVE = 0.25  # perplexity over used codes: below it, a few codes do the work
HALVED, LESS = 0.5, 0.9  # of the most ever used: a fall; if most codes were in use, a slight one
FALLEN = 0.25  # of the highest perplexity: more than windows of one size differ by chance
RARE = "Rarely used codes may be alive besides: perplexity cannot tell."
TELL_RARE = "log used_codes over an epoch to tell rare codes from dead ones"
LONG_DECAY = 0.95
SAME_WINDOW = 0.8  # validation's tokens over training's: fewer show fewer codes by themselves
SHOWS = 0.95  # of the codebook that a window should be able to show


def codebook_collapse(log: Log) -> Finding:
    share = in_use(log)
    if share is None:
        effective = _effective_share(log)
        return _collapse_without_size(log) if effective is None else _by_perplexity(log, effective)
    split = "val" if log.has("utilization", "val") and not is_stale(log) else "train"
    codes, past = log.very_end("used_codes", split), _highest(log)
    if past is not None and codes is not None and past.value < codes.value:
        past = None  # the splits count windows of different size
    if share.value >= LOW:
        plain = log.very_end("utilization", split)
        if uniform(log, split) is None and plain.value < LOW:
            return unknown(
                "codebook-collapse",
                f"{plain.value:.1%} of the codes are in use, which "
                "may be all that a small window can show.",
                "window_tokens",
            )
        return clear("codebook-collapse", share, codes)
    severity: Severity = "critical" if share.value < COLLAPSED else "warning"
    return fired(
        "codebook-collapse",
        severity,
        codes,
        share,
        past,
        log.late("perplexity", split),
        cause=_cause_of_collapse(log, past),
        remedy=_remedy_of_collapse(log),
    )


def _collapse_without_size(log: Log) -> Finding:
    """K is at least the most codes ever used, which bounds utilization from above."""
    now, past = log.late("used_codes"), _highest(log)
    if now is None or past is None or now.value >= COLLAPSED * past.value:
        fall = _fall_of_perplexity(log)  # or a language model's, that learns
        return unknown(
            "codebook-collapse",
            "The size of the codebook is not known."
            + (f" If the perplexity is the codebook's: {fall.cause}" if fall else ""),
            "codebook_size, K",
        )
    return fired(
        "codebook-collapse",
        "critical",
        now,
        past,
        cause="K, not known, is at least the most codes ever used. Far fewer are in use now.",
        remedy=_remedy_of_collapse(log),
    )


def _effective_share(log: Log) -> Evidence | None:
    """Perplexity over K: at least that share of the codebook is in use."""
    size = log.settings.codebook_size
    split = "val" if log.has("perplexity", "val") and not is_stale(log) else "train"
    found = log.late("perplexity", split)
    if found is None or size is None:
        return None
    return Evidence("effective use, perplexity / K", min(1.0, found.value / size), "", found.window)


def _by_perplexity(log: Log, effective: Evidence) -> Finding:
    """exp(entropy) of n codes is at most n: it bounds the codes in use from below, not above."""
    name, size = "codebook-collapse", log.settings.codebook_size
    least = Evidence("codes in use", f"at least {math.ceil(effective.value * size - 1e-9)}")
    if effective.value >= LOW:
        return clear(name, effective, least)
    split = effective.window.split(",")[0]
    shows = uniform(log, split)
    if shows is None or shows < SHOWS or effective.value >= COLLAPSED:
        small = shows is None or shows < SHOWS
        return _fall_of_perplexity(log) or unknown(
            name,
            f"{least.value} of {size} codes are in use, by perplexity; how many more is not in it"
            + (", and a small window shows few codes by itself." if small else "."),
            "used_codes, counted over an epoch",
        )
    return fired(
        name,
        "warning",
        effective,
        least,
        cause=f"The use of codes is as uneven as if {effective.value * size:.0f} of {size} shared "
        f"it equally. {RARE}",
        remedy=f"{TELL_RARE}; {_remedy_of_collapse(log)}",
    )


def _fall_of_perplexity(log: Log) -> Finding | None:
    """Whether use has become far less even in windows of one size; None: it has not."""
    now, past = log.very_end("perplexity"), log.highest("perplexity")
    if now is None or past is None or now.value >= FALLEN * past.value:
        return None
    return fired(
        "codebook-collapse",
        "warning",
        now,
        replace(past, name="highest perplexity"),
        cause=f"The use of codes was as even as if {past.value:.0f} shared it equally, and has "
        f"become as uneven as if {now.value:.0f} did. {RARE}",
        remedy=f"{TELL_RARE}; {_remedy_of_collapse(log)}",
    )


def _highest(log: Log) -> Evidence | None:
    """The most codes that a training row shows, or the largest share of them, and when."""
    if most := log.highest("used_codes"):
        return replace(most, name="most codes ever used")
    most = log.highest("utilization")
    return most and replace(most, name="highest utilization")


def _cause_of_collapse(log: Log, past: Evidence | None) -> str:
    if (end := resets_ended(log)) is not None:
        return end.sentence
    if past is not None and (course := _course(log, past)) is not None:
        return course
    train = log.split("train")["step"]
    if (own := kind(log)) and own.never:
        return own.never
    if len(train) and train.iloc[0] <= max(10, 0.05 * train.iloc[-1]):
        return (
            "The codebook never came into use: most codes probably started far from the "
            "encoder's outputs."
        )
    return "Few codes are in use throughout this history, which does not show the start."


def _course(log: Log, past: Evidence) -> str | None:
    """How use went from its `past` highest to now, if it was ever there."""
    counted, size = log.has("used_codes"), log.settings.codebook_size
    now = log.very_end("used_codes") if counted else utilization_now(log, "train")
    whole = (size or math.inf) if counted else 1.0
    was_there = past.value >= LOW * whole * (uniform(log, "train") or 1.0)
    if now.value < HALVED * past.value or (was_there and now.value < LESS * past.value):
        fell = (
            f"from {past.value:.0f} to {now.value:.0f} codes"
            if counted
            else f"from {past.value:.0%} to {now.value:.0%} of the codebook"
        )
        return f"Use fell {fell} during training. {_why_they_stay_away(log)}"
    if was_there:
        return "Training uses most of the codebook, and validation alone does not."
    return None


def _why_they_stay_away(log: Log) -> str:
    """What keeps a code unused, by what moves the codes of this kind of layer."""
    if own := kind(log):
        return own.away
    return f"A code that loses its inputs gets no updates, and {_what_resets_do(log)}."


def _what_resets_do(log: Log) -> str:
    """What is known of resets while use fell; no more than that."""
    if resets_seen(log):
        return "the resets do not keep up"
    if log.settings.dead_code_threshold == 0:
        return "the reset is off"
    if log.has("resets"):
        return "no reset was seen"
    return "whether a reset brings it back is not in the data"


def _remedy_of_collapse(log: Log) -> str:
    if resets_ended(log) is not None:
        return KEEP_ON
    if own := kind(log):
        return own.remedy
    threshold, decay = log.settings.dead_code_threshold, log.settings.decay
    memory = ""
    if decay is not None and LONG_DECAY <= decay < 1:
        memory = (
            f"; lower the decay ({decay:g} remembers {1 / (1 - decay):.0f} steps) to 0.9 or less"
        )
    if not threshold and not resets_seen(log):
        return remedy_reset(log) + "; start at k-means of the first batch" + memory
    if threshold and log.has("resets") and not resets_seen(log):
        return (
            "a threshold is set, but no code was reset: see reset-never-fires, and check with "
            "vqlib.audit(quantizer) that the reset acts and lasts" + memory
        )
    return (
        "a reset is on but does not help enough; see any findings on the reset and the encoder "
        "below, check with vqlib.audit(quantizer) that resets last, and let any input be a donor "
        "(donors='batch')" + memory
    )


def train_validation_gap(log: Log) -> Finding:
    name = "train-validation-gap"
    if not (log.has("utilization", "train") and log.has("utilization", "val")):
        return unknown(name, "One of the two splits is missing.", "rows of both train and val")
    train, val = log.late("utilization", "train"), log.late("utilization", "val")
    gap = Evidence("gap", 100 * (train.value - val.value), "points", "train - val")
    if train.value - val.value <= GAP:
        return clear(name, gap)
    if is_stale(log):
        return unknown(
            name,
            "The last validation was long before the last training row.",
            "a validation at the end",
        )
    tokens = window_tokens(log, "train"), window_tokens(log, "val")
    if None in tokens or tokens[1] < SAME_WINDOW * tokens[0]:
        return unknown(
            name,
            f"Training and validation differ by {gap.value:.0f} points, but validation's window "
            "may be smaller, and a smaller window shows fewer codes.",
            "window_tokens of both splits, with at least as many in val as in train",
        )
    severity: Severity = "critical" if train.value - val.value > WIDE_GAP else "warning"
    mature = log.late("mature_utilization", "train")
    fresh = mature is not None and mature.value < 0.8 * train.value
    return fired(
        name,
        severity,
        gap,
        train,
        val,
        mature,
        cause="Training also counts codes that were reset moments ago and have been hit once."
        if fresh
        else "Data not trained on reach fewer codes: some codes fit only the training data.",
        remedy="judge by validation, or by mature_utilization; reset less often, and let the "
        "learning rate fall at the end"
        if fresh
        else "use more training data, or a smaller codebook" + _than_now(log),
    )


def _than_now(log: Log) -> str:
    size = log.settings.codebook_size
    return f" than {size} codes" if size else ""


def top_code_dominates(log: Log) -> Finding:
    name, size = "top-code-dominates", log.settings.codebook_size
    split = log.best_split("top_code_ratio")
    ratio = log.late("top_code_ratio", split)
    if ratio is None and size is not None and size > 1:
        ratio = _least_top_ratio(log, size)
    if ratio is None or size is None:
        needs = "top_code_ratio" if size else "top_code_ratio and codebook_size"
        return unknown(name, "How often each code is used is not in the data.", needs)
    share = Evidence(
        "share of the most used code", ratio.value / size, "of the tokens", ratio.window
    )
    effective = _effective(log, split)
    excess = (share.value - 1 / size) / (1 - 1 / size) if size > 1 else 0.0
    by_top = excess >= max(TOP_EXCESS, min(MOST, 5 / size))
    by_few = effective is not None and effective.value < FEW_EFFECTIVE
    if not by_top and not by_few:
        return clear(name, ratio, share)
    grave = excess >= (MOST if size >= SMALL else NEARLY_ALL)
    return fired(
        name,
        "critical" if grave else "warning",
        ratio,
        share,
        effective,
        cause=_why_one_dominates(log),
        remedy=_remedy_of_one(log),
    )


def _why_one_dominates(log: Log) -> str:
    if kind(log):  # no reset, and often no signal
        return (
            "The encoder gives many inputs nearly the same output, or few codes are left to share "
            "them. Utilization alone looks too good."
        )
    return (
        "The encoder gives many inputs nearly the same output (flat regions, silence, padding), or "
        "few codes are left to share them. Utilization alone looks too good."
    )


def _remedy_of_one(log: Log) -> str:
    look = "look at which inputs the top code takes"
    if own := kind(log):
        return f"{look}; {own.one}"
    return (
        f"mask out padding; {look}; split that code: DeadCodeReset(donors='usage') moves dead "
        "codes next to crowded ones"
    )


def _least_top_ratio(log: Log, size: int) -> Evidence | None:
    """K / perplexity, if that alone makes one code dominate: no distribution of perplexity P has
    a largest share below 1 / P."""
    split = log.best_split("perplexity")
    found = log.late("perplexity", split)
    if found is None or found.value < 1 or (1 / found.value - 1 / size) / (1 - 1 / size) < MOST:
        return None
    return Evidence("top_code_ratio, at least", size / found.value, "x average", found.window)


def _effective(log: Log, split: str) -> Evidence | None:
    """Perplexity over used codes: 1 if all used codes are used equally often."""
    perplexity, used = log.late("perplexity", split), log.late("used_codes", split)
    if perplexity is None or used is None or used.value < 8:
        return None
    return Evidence("perplexity / used codes", perplexity.value / used.value, "", used.window)


def window_too_small(log: Log) -> Finding:
    name, size = "window-too-small", log.settings.codebook_size
    shows = {
        split: uniform(log, split) for split in ("train", "val") if log.has("utilization", split)
    }
    split, possible = min(
        ((s, p) for s, p in shows.items() if p is not None),
        key=lambda pair: pair[1],
        default=(None, None),
    )
    if possible is None or size is None:
        return unknown(
            name,
            "How many tokens a row counts is not known.",
            "window_tokens, or tokens_per_step and codebook_size",
        )
    tokens = window_tokens(log, split)
    window = f"{split}, a window of {tokens:.0f} tokens" if tokens else split
    evidence = Evidence("uniform use would show", possible, "of the codebook", window)
    if possible >= SHOWS:
        return clear(name, evidence)
    enough = math.ceil(-math.log(1 - SHOWS) * size)
    every = log.settings.tokens_per_step or tokens
    windows = f" (usage_window={math.ceil(enough / every)})" if split == "train" and every else ""
    return fired(
        name,
        "warning" if possible < LOW else "note",
        evidence,
        cause=f"Even perfectly uniform use would show only {possible:.1%} of the {size} codes.",
        remedy=f"count over at least {enough} tokens{windows}, and compare with "
        "usage.uniform_utilization(K, N), not with 100 %",
    )


RULES = (codebook_collapse, train_validation_gap, top_code_dominates, window_too_small)
