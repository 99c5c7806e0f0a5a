"""The first steps: is the first codebook kept, do norms explode, what does the loss read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlib.diagnosis.audit.bench import Bench, Seen
from vqlib.diagnosis.audit.resetting import kept_counts, patience_without_resets
from vqlib.diagnosis.findings import Evidence, Finding
from vqlib.diagnosis.start_rules import SHRUNK
from vqlib.quantization.quantizer import NormEMAQuantizer
from vqlib.watching.track import shrunk

SLACK = 0.2  # radians by which a code left the way from where it was to its inputs' mean
LOUD, FAINT = 1e-2, 1e-3  # a total collapse should read at least so much
REMEDY = "Start the counts at the hits of the first batch, and each sum at its code x its count."
SELDOM = 400  # steps to wait for a reset of a layer that nothing else moves: two checks
GROWN, EXPLODED = 3.0, 10.0  # x the norm of codes that were hit


@dataclass(frozen=True)
class Start:
    """A copy of the subject after its first steps on broad data."""

    settled: nn.Module
    steps: list[Seen]
    first: int | None  #: the step that first changed the codebook, if one did


def start(bench: Bench) -> Start:
    """The first steps, and one more than the reset's interval so that it can act twice."""
    module = bench.copy()
    tokens = [bench.affordable] * min(bench.every, 10) + [bench.few]
    steps = [bench.step(module, bench.broad(n)) for n in tokens]
    if not any(map(_moved, steps)):
        # a reset alone may move codes, seldom or when a count has fallen: now most have no hit
        longest = min(SELDOM, 2 * bench.every + 1) if bench.every >= len(steps) else 0
        if kept_counts(bench, module):
            longest = max(longest, patience_without_resets(bench))
        place = bench.direction()
        while len(steps) < longest and not _moved(steps[-1]):
            steps.append(bench.step(module, bench.ball(place, bench.few)))
    bench.compare(steps[-1])
    first = next((i for i, seen in enumerate(steps) if _moved(seen)), None)
    return Start(module, steps, first)


def _moved(seen: Seen) -> bool:
    return bool((seen.before != seen.after).any())


def cold_start(bench: Bench, started: Start) -> Finding:
    """How many codes in use were thrown away in the first steps.

    In use: hit at least twice the threshold (the uniform share, if the threshold is unknown).
    Thrown away: neither where it was nor on the way to the mean of its inputs, in direction or,
    in the first step, in length.
    """
    if bench.fresh is False:
        return _seen_data("cold-start")
    if not bench.visitable:
        return Finding(
            "cold-start",
            "not applicable",
            cause="The layer projects its inputs or transforms its codes, so the two cannot be "
            "compared.",
        )
    if bench.affordable < bench.tokens:
        return Finding(
            "cold-start",
            "unknown",
            cause=f"A step of {bench.tokens} tokens for {bench.codes} codes takes too long here; "
            f"{bench.affordable} tokens cannot answer for it.",
            remedy="the same layer with fewer codes, or fewer tokens=",
        )
    threshold = bench.threshold(bench.tokens)
    enough = bench.tokens / bench.codes if threshold is None else max(1.0, 2 * threshold)
    checked = started.steps[: bench.every]
    first = checked[0]
    used = first.hits >= enough
    if not used.any():
        return Finding(
            "cold-start",
            "unknown",
            cause="No code was hit often enough to tell.",
            remedy="a larger batch (tokens=)",
        )
    codes = _first_codes(bench, first)
    if codes is None:
        return Finding(
            "cold-start",
            "unknown",
            cause="Of several codebooks, the codes that k-means sets cannot be read.",
            remedy="a layer with one of its codebooks alone",
        )
    random = float(_turn(codes, first.before)[used].median()) < 1e-3
    thrown = _astray(codes, first) & used
    small = shrunk(codes, first.after, first.z, first.indices) & used & ~thrown
    for seen in checked[1:]:
        thrown |= _astray(seen.before, seen) & used & (seen.hits >= enough)
    if int(small.sum()) > int(thrown.sum()):
        return _shrinking(codes, first, used, small)
    part = int(thrown.sum()) / int(used.sum())
    first_steps = "first step" if len(checked) == 1 else f"first {len(checked)} steps"
    window = f"{first_steps} of {bench.tokens} tokens"
    evidence = [
        Evidence("codes in use", int(used.sum()), f"of {bench.codes} codes", window),
        Evidence("of these thrown away", int(thrown.sum()), "codes", window),
    ]
    begins = 1.0
    if first.counts is not None and threshold:
        begins = float((first.counts / first.hits)[used].median())
        evidence.append(
            Evidence("their counts over their hits", begins, "", "after the first step")
        )
    evidence = tuple(evidence)
    if part <= 0.05 and begins > 0.75:
        return Finding("cold-start", "clear", evidence)
    if part <= 0.05:
        return Finding(
            "cold-start",
            "note",
            evidence,
            "Counts start below the hits of the first batch, although with this batch hardly any "
            "code is lost because of it.",
            REMEDY,
        )
    cause = (
        "Codes that the first batch uses are thrown away at once: their counts start too low, so a "
        "reset moves them, or their running sums are divided by too little."
    )
    if random:  # nothing learned is lost
        return Finding(
            "cold-start",
            "note",
            evidence,
            cause + " The codes lost were still random, so nothing learned is lost.",
            REMEDY,
        )
    return Finding("cold-start", "critical" if part > 0.5 else "warning", evidence, cause, REMEDY)


def _shrinking(codes: Tensor, first: Seen, used: Tensor, small: Tensor) -> Finding:
    window = f"first step of {len(first.z)} tokens"
    kept = float((first.after.norm(dim=-1) / codes.norm(dim=-1))[used].median())
    part = int(small.sum()) / int(used.sum())
    return Finding(
        "cold-start",
        "note" if part <= 0.05 else "critical" if part > 0.5 else "warning",
        (
            Evidence("codes in use", int(used.sum()), f"of {len(codes)} codes", window),
            Evidence("of these shrunk to less than half", int(small.sum()), "codes", window),
            Evidence("their norm after the step, over before", kept, "", "median"),
        ),
        *SHRUNK,
    )


def narrow_start(bench: Bench, *, resets: bool = True) -> tuple[nn.Module, list[Seen]]:
    """First steps on data in one place, then in the opposite one: most codes have no hit.

    ``resets``: False takes the reset of a `NormEMAQuantizer` away.
    """
    module, centre = bench.copy(), bench.direction()
    if not resets:
        module.reset = None
    places = (centre, -centre, -centre)
    return module, [bench.step(module, bench.ball(place, bench.few)) for place in places]


def first_step_explosion(bench: Bench, steps: list[Seen], how: str = "") -> Finding:
    """The norm of codes without a hit against that of codes that were hit.

    A reset may move all of them at once. Of our own quantizer it is then taken away: ``how``.
    """
    if bench.fresh is False:
        return _seen_data("first-step-explosion")
    before = steps[0].before.norm(dim=-1).nan_to_num(0.0)  # there may be no codes yet
    usual, largest, idle = float(before.max()), 0.0, 0
    put = torch.zeros(bench.codes, dtype=torch.bool)
    for seen in steps:
        norms = seen.after.norm(dim=-1).nan_to_num(torch.inf)
        put |= seen.reset & (not how)  # a start by k-means looks like a reset, too
        usual = max(usual, float(norms[seen.hits > 0].median()))
        alone = (seen.hits == 0) & ~put
        if alone.any():
            largest, idle = max(largest, float(norms[alone].max())), max(idle, int(alone.sum()))
    ratio = largest / max(usual, 1e-12)
    if idle == 0 and not how and isinstance(bench.pristine, NormEMAQuantizer):
        _, steps = narrow_start(bench, resets=False)
        return first_step_explosion(bench, steps, ", without its reset")
    if idle == 0:
        return Finding(
            "first-step-explosion",
            "unknown",
            cause="Every code was hit or reset.",
            remedy="the same layer without its reset",
        )
    window = f"first {len(steps)} steps of {bench.few} tokens in one place{how}"
    evidence = (
        Evidence("largest norm of a code without a hit", ratio, "x that of hit codes", window),
        Evidence("codes without a hit", idle, f"of {bench.codes}", window),
    )
    if ratio <= GROWN:
        return Finding("first-step-explosion", "clear", evidence)
    return Finding(
        "first-step-explosion",
        "critical" if ratio > EXPLODED else "warning",
        evidence,
        "A code is a running sum divided by a running count, and the two start out of step.",
        "Start the counts at 1 if the sums start at the codes; or start both at 0 and do not "
        "update codes without a hit.",
    )


@torch.no_grad()
def loss_hides_collapse(bench: Bench, narrow: nn.Module) -> Finding:
    """The loss when every input is as far from its code as unrelated vectors are.

    ``narrow`` has all its codes in one place, set there by its first batch, so broad inputs
    are a collapse. The loss is scaled to 1 - cosine = 1.
    """
    z = bench.broad(bench.few)
    narrow.train()
    output = bench.call(bench.copy(narrow), z)
    loss = bench.reader.loss(output)
    if not loss:
        return Finding("loss-hides-collapse", "not applicable", cause="The layer reports no loss.")
    quantized = bench.reader.quantized(output, z)
    wrong = float(1 - F.cosine_similarity(z, quantized, dim=-1).mean())
    if wrong < 1e-3:
        return Finding(
            "loss-hides-collapse",
            "unknown",
            cause="The codes fit every input.",
            remedy="a smaller codebook or more dimensions",
        )
    both = bench.reader.loss(bench.call(bench.copy(narrow), torch.cat([z, z]))) or 0.0
    twice = both / loss
    reads = loss / wrong
    window = f"{len(z)} tokens in all directions, features of order 1"
    evidence = (
        Evidence("1 - cosine of inputs and codes", wrong, "", window),
        Evidence("loss", loss, "", window),
        Evidence("loss that a total collapse (1 - cosine = 1) would read", reads, "", "scaled"),
        Evidence("loss where every token comes twice", twice, "x the loss", window),
    )
    if twice < 0.75:
        return Finding(
            "loss-hides-collapse",
            "warning",
            evidence,
            "The loss falls as the number of tokens grows: a mean is divided by the tokens again.",
            "Average the loss once.",
        )
    if reads >= LOUD:
        return Finding("loss-hides-collapse", "clear", evidence)
    return Finding(
        "loss-hides-collapse",
        "warning" if reads < FAINT else "note",
        evidence,
        "The loss averages over elements of short vectors: it is small whether codes fit or not.",
        "Watch 1 - cosine or the share of codes in use as well, never this loss alone.",
    )


def _first_codes(bench: Bench, first: Seen) -> Tensor | None:
    """(K, D) the codes that the first step's tokens were given; rows that took none are 0."""
    if bench.codebooks == 1:
        codes = torch.zeros_like(first.before)
        codes[first.indices] = bench.reader.quantized(first.output, first.z)
        return codes
    # what is returned is a sum over codebooks
    return first.before if bool((first.before != first.before[0]).any()) else None


def _seen_data(question: str) -> Finding:
    cause = "The module has already learned: pass a function that makes a fresh one."
    return Finding(question, "not applicable", cause=cause)


def _turn(left: Tensor, right: Tensor) -> Tensor:
    """(K,) angles in radians; by chords, as acos loses small angles."""
    left, right = F.normalize(left, dim=-1), F.normalize(right, dim=-1)
    return 2 * torch.atan2((left - right).norm(dim=-1), (left + right).norm(dim=-1))


def _astray(codes: Tensor, seen: Seen) -> Tensor:
    """(K,) bool: where the code is now is not between where it was and its inputs' mean."""
    sums = torch.zeros_like(codes).index_add_(0, seen.indices, seen.z)
    way = _turn(codes, seen.after) + _turn(seen.after, sums) - _turn(codes, sums)
    return way > SLACK
