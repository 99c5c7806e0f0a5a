"""Rules on the start of a codebook: its counts, its first step, copies among its codes."""

from __future__ import annotations

from vqlib.diagnosis.findings import Evidence, Finding, clear, fired, unknown
from vqlib.diagnosis.logs import Log
from vqlib.diagnosis.remedies import kind
from vqlib.diagnosis.resets import without_resets
from vqlib.diagnosis.shares import LOW, in_use

NEAR_SHARE = 0.25  # threshold over N/K
ONCE = 4.0  # times the resets of later rows: a start happens once
THROWN = 0.10  # of the codebook: in use in the first step and reset in it
EXPLODED = 10.0  # times the median norm of used codes
COPIES, HARMFUL_COPIES, MANY_COPIES = 0.02, 0.10, 0.50  # of the codebook
FEW_SHRUNK, MOST_SHRUNK = 0.05, 0.5  # of the codes hit in the first step
SHRUNK = (
    "Codes that the first batch uses shrink at once: a code is a running sum divided by a running "
    "count, and the sum starts too small for the count.",
    "Start each running sum at its code x its count.",
)


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
        return without_resets(name, log, "resets and used_codes of the first steps")
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


RULES = (cold_start, first_step_explosion, duplicate_codes)
