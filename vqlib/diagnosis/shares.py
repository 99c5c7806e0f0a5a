"""How much of a codebook is in use, against what the window of tokens can show."""

from __future__ import annotations

import math

from vqlib.diagnosis.findings import Evidence
from vqlib.diagnosis.logs import Log, once
from vqlib.quantization import usage

COLLAPSED, LOW = 0.25, 0.5  # shares of what uniform use would show: the guide's levels, rounded
ASSUMED_TOKENS = 1000  # in a window of unknown size


@once
def in_use(log: Log) -> Evidence | None:
    """Share of what uniform use would show in the same window: validation's, else training's."""
    for split in ("val", "train"):
        if split == "val" and is_stale(log):
            continue
        found = share_of_possible(log, split)
        if found is not None:
            return found
    return None


@once
def is_stale(log: Log) -> bool:
    """Whether more than half of the training rows lie after the last validation."""
    train, val = log.split("train")["step"], log.split("val")["step"]
    return len(val) > 0 and bool((train > val.iloc[-1]).sum() > len(train) / 2)


@once
def share_of_possible(log: Log, split: str) -> Evidence | None:
    """Utilization over what uniform use of the window's tokens would show; 1 is flat use."""
    measured = utilization_now(log, split)
    if measured is None:
        return None
    possible, window = uniform(log, split), measured.window
    if possible is None:
        possible, tokens = _least_possible(log, split)
        taken = f"taken as {tokens:.0f}" if math.isfinite(tokens) else "and K neither"
        window += f"; tokens of the window not known, {taken}"
    return Evidence(
        "utilization / that of uniform use", min(1.0, measured.value / possible), "", window
    )


def utilization_now(log: Log, split: str) -> Evidence | None:
    """Late utilization; that of the very end if it fell just now."""
    late, end = log.late("utilization", split), log.very_end("utilization", split)
    return end if late is not None and end.value < LOW * late.value else late


def _least_possible(log: Log, split: str) -> tuple[float, float]:
    """(utilization that uniform use would show, tokens) for a window of unknown size.

    It is taken as small, in favour of the codebook, though it holds a token for each code.
    """
    size = log.settings.codebook_size
    if size is None:
        return 1.0, math.inf
    most = log.split(split)["used_codes"].max() if log.has("used_codes", split) else 0
    tokens = max(ASSUMED_TOKENS, most)
    return usage.uniform_utilization(size, int(tokens)), tokens


def uniform(log: Log, split: str) -> float | None:
    """Utilization that uniform use would show in the split's window; None: not known."""
    given = log.late("uniform_utilization", split)
    if given is not None and given.value > 0:
        return given.value
    tokens = window_tokens(log, split)
    if not tokens or log.settings.codebook_size is None:
        return None
    return usage.uniform_utilization(log.settings.codebook_size, int(tokens))


def window_tokens(log: Log, split: str) -> float | None:
    """Tokens counted for a row; a training row without it is taken to count one step's."""
    given = log.late("window_tokens", split)
    if given is not None:
        return given.value
    tokens, used = log.settings.tokens_per_step, log.late("used_codes", split)
    if split != "train" or tokens is None or (used is not None and used.value > tokens):
        return None  # more codes than a step has tokens: the row counts more than one step
    return tokens
