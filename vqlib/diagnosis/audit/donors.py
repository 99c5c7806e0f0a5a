"""What resets do to the codebook: copies of one vector, and resets that never end."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from vqlib.diagnosis.audit.bench import FEW, Bench, Seen
from vqlib.diagnosis.audit.resetting import Starving
from vqlib.diagnosis.findings import Evidence, Finding

POINT = 0.01  # radius of a place so small that one code takes it all
JITTER = 0.02  # of tokens around an anchor, over its norm
ROUNDS = 4  # resets that are looked at
LATE = 3  # the last third of the steps is counted
COMPARED, ASIDE = 10**8, 2**25  # tokens x codes of its steps: for an answer, or as a detail of it


def duplicate_codes(bench: Bench, starved: Starving) -> Finding:
    """Do codes that are reset together become one vector?

    Avoidable: the most used code had enough different tokens for all of them.
    """
    name = "duplicate-codes"
    if starved.after is None:
        return Finding(name, "not applicable", cause=f"No reset was seen in {starved.window}.")
    rounds = ROUNDS if len(starved.codes) <= FEW else 1  # so many draws repeat one at once
    together, copies, hit = _in_one_cell(bench, starved, rounds)
    if together == 0:
        return Finding(
            name,
            "unknown",
            cause="No two codes were reset together onto tokens of one code, or none was reset "
            f"again within {bench.patience} steps.",
            remedy="a larger codebook, or a shorter decay",
        )
    resets = f"{rounds} reset{'s' * (rounds > 1)}"
    window = f"{resets}, more tokens in the most used code than codes were dead"
    evidence = [
        Evidence("codes reset", together, "codes", window),
        Evidence("of these equal to an earlier code", copies, "codes", window),
    ]
    if copies:
        evidence.append(Evidence("of these hit at the next step", hit, "codes"))
        return Finding(
            name,
            "warning",
            tuple(evidence),
            "Donors are drawn with replacement although there are enough. Of several equal codes "
            "only one can be chosen.",
            "Draw donors without replacement (a permutation).",
        )
    scattered = _scattered(bench, starved)
    if scattered is not None and len(_copies(scattered)):
        evidence += [
            Evidence(
                "codes reset in one step",
                int(scattered.put_elsewhere.sum()),
                "codes",
                "tokens scattered over many codes",
            ),
            Evidence(
                "codes equal to an earlier code",
                len(_copies(scattered)),
                "codes",
                "tokens scattered over many codes",
            ),
        ]
        return Finding(
            name,
            "note",
            tuple(evidence),
            "If the donors' code has fewer tokens than there are dead codes, several codes get the "
            "same token.",
            "Draw the missing donors from the whole batch (in vqlib: distinct=True, or "
            'donors="batch").',
        )
    return Finding(name, "clear", tuple(evidence))


def _in_one_cell(bench: Bench, starved: Starving, rounds: int) -> tuple[int, int, int]:
    """(codes, copies, copies hit next): resets together while one code has tokens enough."""
    module, wanted = starved.after, len(starved.codes)
    many, place = min(2 * wanted + 2, max(FEW, bench.crowd)), starved.centre
    together = copied = hit = 0
    for _ in range(rounds):
        place = -place  # a new place, so that the codes of the last one die together
        seen, module = _next_reset(bench, module, wanted, partial(_cell, bench, place), many)
        if seen is None:
            break
        put, copies = int(seen.put_elsewhere.sum()), _copies(seen)
        most = int((seen.shifted | (seen.hits > 0)).sum())  # surely no more were reset
        if put >= 2 and most <= int(seen.hits.max()):
            together += put
            copied += len(copies)
            if not len(copies):
                continue
            following = bench.step(bench.copy(module), bench.ball(place, many, POINT))
            hit += int((following.hits[copies] > 0).sum())
    return together, copied, hit


def _cell(bench: Bench, place: Tensor, module: nn.Module, many: int) -> Tensor:
    """At most ``many`` different tokens in one place that all take the same code."""
    z = bench.ball(place, 4 * many if many <= FEW else FEW, POINT)
    probe = bench.copy(module).eval()
    indices = bench.indices(probe, bench.call(probe, z), z).reshape(len(z), -1)[:, 0]
    z = z[indices == indices.mode().values]
    return z[:many] if many <= FEW else bench.between(z, many)


def _next_reset(
    bench: Bench,
    module: nn.Module,
    wanted: int,
    tokens: Callable[[nn.Module, int], Tensor],
    many: int,
) -> tuple[Seen | None, nn.Module]:
    """The first step that resets half of ``wanted`` codes together, and the module after it.

    None: none does. ``tokens`` gives at most ``many`` tokens for a module. A step of more than
    `FEW` is tried with fewer first, and taken only if those reset anything.
    """
    for _ in range(bench.patience):
        before = module
        if many > FEW:
            module = bench.copy(before)
            tried = bench.step(module, tokens(before, bench.starving))
            if not tried.put_elsewhere.any():
                continue
        module = bench.copy(before)
        seen = bench.step(module, tokens(before, many))
        if 2 * int(seen.put_elsewhere.sum()) > wanted:
            return seen, module
    return None, module


def _scattered(bench: Bench, starved: Starving) -> Seen | None:
    """The next reset while every other code has two tokens, so that none has many."""
    others = torch.ones(bench.codes, dtype=torch.bool)
    others[starved.codes] = False
    if not bench.visitable or not others.any() or len(starved.codes) <= 4:
        return None
    rows = starved.reset.after[others][: len(starved.codes)]
    return _next_reset(
        bench,
        starved.after,
        len(starved.codes),
        lambda module, many: jittered(rows[: many // 2].repeat(2, 1), bench),
        many=2 * len(rows),
    )[0]


def _copies(seen: Seen) -> Tensor:
    """(n,) codes just reset whose row another reset code before them has, to the bit."""
    codes = seen.put_elsewhere.nonzero().flatten()
    _, group = seen.after[codes].unique(dim=0, return_inverse=True)
    place = torch.arange(len(codes))
    first = torch.full_like(place, len(codes)).scatter_reduce(0, group, place, "amin")
    return codes[first[group] != place]


def jittered(rows: Tensor, bench: Bench) -> Tensor:
    """(n, D) tokens around ``rows``, all different."""
    noise = torch.randn(rows.shape, generator=bench.generator) * rows.norm(dim=-1, keepdim=True)
    return rows + JITTER * noise / rows.shape[-1] ** 0.5


def threshold_above_share(bench: Bench, settled: nn.Module, starved: Starving) -> Finding:
    """Under perfectly uniform inputs, do the resets ever end?"""
    name = "threshold-above-share"
    threshold, share = bench.threshold(bench.tokens), bench.tokens / bench.codes
    if not threshold and not starved.put:
        return Finding(name, "not applicable", cause=f"No reset was seen in {starved.window}.")
    if not bench.visitable:
        return Finding(
            name,
            "not applicable",
            cause="The layer projects its inputs or transforms its codes, so uniform use cannot be "
            "set up.",
        )
    evidence = [Evidence("uniform share", share, "hits a step", f"{bench.tokens} tokens a step")]
    above = threshold is None or threshold > share
    rate, window = _rate_when_uniform(bench, settled, COMPARED if above else ASIDE)
    if rate is not None:
        reset = "codes reset a check under uniform inputs"
        evidence.append(Evidence(reset, rate, "of the codebook", window))
    if threshold:
        evidence.append(Evidence("threshold", threshold, "hits a step"))
    elif rate is None:
        return Finding(
            name,
            "unknown",
            tuple(evidence),
            f"Steps of {bench.tokens} tokens for {bench.codes} codes take too long here, and the "
            "layer names no threshold.",
            "fewer tokens=, or the threshold in the adapter's settings",
        )
    relative = bool(bench.settings.get("reset_relative"))
    if not above or (threshold is None and rate < 0.01):
        return Finding(name, "clear", tuple(evidence))
    if not (bench.tokens_given or relative):
        least = "" if not threshold else f", at least {math.ceil(threshold * bench.codes)}"
        return Finding(
            name,
            "unknown",
            tuple(evidence),
            "The uniform share depends on the tokens of a step, which were not given.",
            f"tokens= as in your training{least} for this threshold",
        )
    reach = "" if not threshold else f": at most {min(1.0, share / threshold):.0%} of the codes can"
    return Finding(
        name,
        "critical" if rate is not None and rate > 0.25 else "warning",
        tuple(evidence),
        f"Counts add up to the tokens of a step, so not all codes can stay above{reach}.",
        f"Use {0.1 * share:.2g} hits a step, or a threshold relative to the share: 0.1.",
    )


def _rate_when_uniform(bench: Bench, settled: nn.Module, most: int) -> tuple[float | None, str]:
    """Codes reset at each check, over K, in the last third; every place gets equal tokens.

    None if that takes more than ``most`` comparisons of tokens and codes.
    """
    anchors, module = bench.book(settled), bench.copy(settled)
    decay = bench.decay
    steps = 40 if not decay or decay == 1 else min(40, math.ceil(3 / (1 - decay)))
    fewest = max(LATE, LATE * bench.every)
    affordable = most // (bench.tokens * bench.codes)
    if affordable < fewest:
        return None, ""
    steps = max(fewest, min(steps, affordable))
    late, total = steps // LATE, 0
    for step in range(steps):
        turn = (torch.arange(bench.tokens) + step * bench.tokens) % bench.codes
        seen = bench.step(module, jittered(anchors[turn], bench))
        if step >= steps - late:
            total += int(seen.reset.sum())
    checks = max(1, late // bench.every)
    return total / checks / bench.codes, f"last {late} of {steps} steps"
