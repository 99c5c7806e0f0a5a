"""Codes are starved until the layer resets them; then they are watched."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from vqlib.diagnosis.audit.bench import FEW, SHIFTED, Bench, Seen, state_of
from vqlib.diagnosis.findings import Evidence, Finding

LONGEST = 400  # steps that a starving may take
AGAIN = 20  # checks for which codes that are reset again and again are left alone
PAIRS = 10**8  # of tokens and codes compared, over all steps
VISITED = 1024  # tokens fed to reset codes, of more codes than `Bench.starving` tokens
BESIDE = 0.9  # cosine from which a code is among inputs that lie in one place
FORGOTTEN = (
    "A reset code is dead again at once and is moved again, even if it is hit: its count is not "
    "refilled, or something overwrites it."
)
REFILL = (
    "Set the count of a reset code above the threshold, for example to threshold + 1, and also "
    "reset every buffer that the code is computed from."
)


@dataclass
class Starving:
    """All inputs lie in one place, so that the other codes die.

    ``reset``: the step at which most codes were put elsewhere, if any; ``codes``: these;
    ``before`` and ``after``: the module around it.
    """

    centre: Tensor
    tokens: int  #: of the last step, or of the step that reset most codes
    steps: int = 0
    put: int = 0  #: codes put elsewhere, over all steps
    said: int = 0  #: codes that the layer says it reset, over all steps
    undone: int = 0  #: codes put elsewhere within a step, and back at its end
    dead: int = 0  #: codes without a hit and below the threshold, at the end
    reset: Seen | None = None
    codes: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    before: nn.Module | None = None
    after: nn.Module | None = None
    trained: nn.Module | None = None  #: the module at the end

    @property
    def window(self) -> str:
        return f"{self.steps} steps of {self.tokens} tokens in one place"


def starve(bench: Bench, settled: nn.Module, waited: int = 0) -> Starving:
    """Feed one place until half of the codebook was reset, or for as long as that may take.

    ``waited``: steps that already passed until a code moved.
    """
    seen, module = None, bench.copy(settled)
    done = Starving(bench.direction(), bench.starving)
    for _ in range(max(_patience(bench, module), min(LONGEST, 2 * waited))):
        seen, before, module = bench.starving_step(module, done.centre)
        put = seen.put_elsewhere
        done.steps += 1
        done.put += int(put.sum())
        done.said += len(seen.announced)
        if int(put.sum()) > len(done.codes):
            done.reset, done.codes = seen, put.nonzero().flatten()
            done.before, done.after, done.tokens = before, module, len(seen.z)
        if 2 * done.put >= bench.codes:
            break
    if not (done.put or done.said):
        done.undone = _undone(bench, bench.copy(module), done)
    done.trained = module
    threshold = bench.threshold(len(seen.z))
    if seen.counts is not None and threshold:
        starved = (seen.hits == 0) & (seen.counts < threshold)
        done.dead = int(starved.sum())
    return done


def _undone(bench: Bench, module: nn.Module, starved: Starving) -> int:
    """Codes without a hit that go to an input within a step, and are back at its end."""
    if not bench.visitable:
        return 0
    most = 0
    for _ in range(2 * bench.every + 3):
        z = bench.ball(starved.centre, starved.tokens)
        try:
            with Moments(lambda: bench.book(module)) as moments:
                seen = bench.step(module, z)
        except Exception:  # compiled code, say, need not run where operations are listened to
            return most
        idle, there = seen.hits == 0, F.normalize(z.mean(dim=0), dim=-1)
        start, end = F.normalize(seen.before, dim=-1), F.normalize(seen.after, dim=-1)
        away = idle & (start @ there < BESIDE) & (end @ there < BESIDE)
        visited = torch.zeros_like(away)
        for book in moments.books:
            visited |= F.normalize(book, dim=-1) @ there > BESIDE
        most = max(most, int((away & visited).sum()))
    return most


class Moments(TorchDispatchMode):
    """The codebook after each operation that changed it, as ``read`` gives it."""

    def __init__(self, read: Callable[[], Tensor]):
        super().__init__()
        self.read, self.books = read, [read()]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        book = self.read()
        if not torch.equal(book, self.books[-1]):
            self.books.append(book)
        return output


def _patience(bench: Bench, module: nn.Module) -> int:
    """Steps until the largest count is below the threshold without a hit, and some more."""
    threshold, counts = bench.threshold(bench.starving), bench.counts(module)
    spare = 2 * bench.every + 3
    if threshold == 0:
        return 20
    if threshold is None and counts is not None:
        return max(patience_without_resets(bench), min(LONGEST, spare))
    if threshold is None or counts is None or not bench.decay or bench.decay == 1:
        return max(60, min(LONGEST, spare))
    above = max(1.0, float(counts.max()) / threshold)
    return min(LONGEST, math.ceil(math.log(above) / -math.log(bench.decay)) + spare)


def patience_without_resets(bench: Bench) -> int:
    """Steps to look for an effect on a reset that was not seen: fewer for a large codebook."""
    return max(60, min(LONGEST, PAIRS // (bench.starving * (bench.codes or 1))))


def reset_never_fires(bench: Bench, starved: Starving) -> Finding:
    """Codes without a hit: does anything happen to them?"""
    threshold = bench.threshold(starved.tokens)
    evidence = [Evidence("codes put elsewhere", starved.put, "codes", starved.window)]
    if starved.put or starved.said or starved.undone:
        return Finding("reset-never-fires", "clear", tuple(evidence))
    if threshold is None and (kept := kept_counts(bench, starved.trained)):
        return reset_unseen(kept, *evidence)
    if threshold is None:
        cause = "No reset was seen, and the layer's settings name no threshold."
        return Finding("reset-never-fires", "not applicable", tuple(evidence), cause)
    if threshold == 0:
        share = bench.tokens / bench.codes
        return Finding(
            "reset-never-fires",
            "note",
            tuple(evidence),
            "The layer has no reset, or it is off (threshold 0): codes without hits do not move.",
            f"Set a threshold of about a tenth of the uniform share: {0.1 * share:.2g} hits a "
            f"step at {bench.tokens} tokens for {bench.codes} codes.",
        )
    if starved.dead:
        evidence += [
            Evidence(
                "codes without a hit and below the threshold",
                starved.dead,
                f"of {bench.codes} codes",
                "at the end",
            ),
            Evidence("threshold", threshold, "hits a step"),
        ]
        return Finding(
            "reset-never-fires",
            "critical",
            tuple(evidence),
            "Codes are dead by the layer's own threshold, but none moves. Its reset is not called, "
            "waits for something that cannot happen, or is undone in the same step.",
            "Compare the counts with the threshold itself. Reset after the averages' update; with "
            "a code, set its running sum (vector x count) and its count.",
        )
    return Finding(
        "reset-never-fires",
        "unknown",
        tuple(evidence),
        f"No code fell below the threshold of {threshold:.3g} hits a step in {starved.steps} "
        "steps, or the layer shows no counts.",
        "counts in the adapter, or a shorter decay",
    )


def reset_unseen(kept: str, *evidence: Evidence) -> Finding:
    """Of a layer that keeps something for each code, and whose codes no reset was seen to move."""
    return Finding(
        "reset-never-fires",
        "unknown",
        evidence,
        f"The layer keeps {kept}, but no reset was seen, and its settings name no threshold: "
        "whether a reset is on is not known.",
        'its threshold in the adapter: settings=lambda m: {"dead_code_threshold": ...}',
    )


def kept_counts(bench: Bench, trained: nn.Module) -> str | None:
    """What the layer keeps for each code and changes as it is `trained`, if anything."""
    if bench.counts(bench.pristine) is not None:
        return "counts"
    before = state_of(bench.pristine)
    for name, now in state_of(trained).items():
        each = isinstance(now, Tensor) and now.numel() == bench.codes == max(now.shape, default=0)
        if each and not torch.equal(now, before.get(name, now.new_empty(0))):
            return f"a number for each code in `{name}`"
    return None


@dataclass(frozen=True)
class Visit:
    """The reset codes are fed their own places."""

    hits: int  #: a step, of each code
    taken: int  #: codes that got them
    lost: int  #: of these, codes that moved all the same
    steps: int


def visit(bench: Bench, starved: Starving, module: nn.Module, codes: Tensor) -> Visit:
    """Feed each reset code its own place; hits twice the threshold, if that is known.

    Of ``codes`` as many are fed as there are tokens for. With so many hits at every step a code
    is alive by definition. All other tokens lie in one place.
    """
    value = bench.settings.get("dead_code_threshold")
    hits, tokens = 8, 0
    if value is not None and bench.settings.get("reset_relative"):
        hits, tokens = 1, math.ceil(bench.codes / (2 * value))
    elif value is not None:
        hits = max(1, math.ceil(2 * value))
    most = 2**14 if starved.tokens <= FEW else VISITED
    # the first ones: of equal codes it is the first that is chosen
    codes = codes[: max(1, min(most, tokens or most) // hits)]
    module = bench.copy(module)
    rows = bench.book(module)[codes]
    size = rows.norm(dim=-1).clamp(min=1e-12)
    taken = lost = torch.zeros(len(codes), dtype=torch.bool)
    steps = min(20, max(3, bench.every + 1))
    for step in range(steps):
        fed = rows.repeat_interleave(hits, dim=0)
        others = bench.ball(-starved.centre, max(0, tokens - len(fed)))
        seen = bench.step(module, torch.cat([fed, others]))
        full = seen.hits[codes] >= hits
        taken = full if step == 0 else taken & (full | lost)
        lost = lost | ((seen.after[codes] - rows).norm(dim=-1) > SHIFTED * size)
    return Visit(hits, int(taken.sum()), int((lost & taken).sum()), steps)


def leave_alone(bench: Bench, starved: Starving) -> tuple[int | None, nn.Module, Tensor]:
    """(steps until most reset codes are reset again without a hit; the module and codes to visit).

    None: in none of `Bench.patience` steps. If it happens at the very next check, they are
    left alone for `AGAIN` more, so that a count that is never refilled has time to fall.
    """
    module, codes = bench.copy(starved.after), starved.codes
    idle = torch.ones(len(codes), dtype=torch.bool)
    again = torch.zeros_like(idle)
    step = 0
    while 2 * int(again.sum()) <= len(codes):
        if step == bench.patience:
            return None, starved.after, codes
        step += 1
        if step <= bench.every:  # at the next check, what the threshold is measured by is the same
            seen = bench.step(module, bench.ball(-starved.centre, starved.tokens))
        else:
            seen, _, module = bench.starving_step(module, -starved.centre)
        again |= idle & seen.reset[codes]
        idle &= seen.hits[codes] == 0
    if step > bench.every:
        return step, starved.after, codes
    lately = torch.zeros_like(again)  # with few tokens some codes may still wait for a donor
    for left in reversed(range(AGAIN * bench.every)):
        # each time elsewhere than the codes were just put
        seen = bench.step(module, bench.ball(bench.direction(), bench.starving))
        if left < bench.every:
            lately |= seen.reset[codes]
    waiting = bench.starving < bench.crowd and lately.any()
    return step, module, codes[lately] if waiting else codes


def reset_does_not_survive(bench: Bench, starved: Starving) -> Finding:
    """Is a reset code still in its place after the step, and after the next ones?"""
    name = "reset-does-not-survive"
    if starved.undone or (starved.said and not starved.put):
        fired = (
            Evidence("codes reset within a step", starved.undone, "codes", "at most, in one step")
            if starved.undone
            else Evidence(
                "codes that the layer says it reset", starved.said, "codes", starved.window
            )
        )
        evidence = (fired, Evidence("of these put elsewhere", starved.put, "codes", starved.window))
        cause = "The reset is undone in the same step: something overwrites the codebook."
        remedy = (
            "Reset after the moving average's update; with a code, set its running sum (vector x "
            "count) and its count too."
        )
        return Finding(name, "critical", evidence, cause, remedy)
    if starved.after is None:
        return Finding(name, "not applicable", cause=f"No reset was seen in {starved.window}.")
    lived, module, codes = leave_alone(bench, starved)
    evidence = [Evidence("codes reset in one step", len(starved.codes), f"of {bench.codes} codes")]
    steps = f"more than {bench.patience}" if lived is None else lived
    evidence.append(Evidence("steps until reset again without a hit", steps, "steps"))
    short = lived is not None and lived <= bench.every
    if bench.visitable:
        seen = visit(bench, starved, module, codes)
        window = f"{seen.steps} steps with {seen.hits} hits for each reset code"
        evidence += [
            Evidence("reset codes that were hit", seen.taken, "codes", window),
            Evidence("of these not left in place", seen.lost, "codes", window),
        ]
        part = seen.lost / max(1, seen.taken)
        if part > 0.1:
            return Finding(
                name, "critical" if part > 0.5 else "warning", tuple(evidence), FORGOTTEN, REFILL
            )
    threshold, counts = bench.threshold(starved.tokens), starved.reset.counts
    if short and threshold and counts is not None:
        low = int((counts[starved.codes] < threshold).sum())
        evidence.append(
            Evidence(
                "reset codes whose count is still below the threshold",
                low,
                "codes",
                "right after the reset",
            )
        )
        if 2 * low > len(starved.codes):
            return Finding(name, "critical", tuple(evidence), FORGOTTEN, REFILL)
    if short:
        return Finding(
            name,
            "note",
            tuple(evidence),
            "A reset code that is not hit is reset again at the very next check.",
            f"Refill its count to several times the threshold{_three_times(bench.decay)}.",
        )
    return Finding(name, "clear", tuple(evidence))


def _three_times(decay: float | None) -> str:
    if not decay or decay == 1:
        return ""
    steps = math.floor(math.log(3) / -math.log(decay)) + 1
    return f": at 3 x the threshold it lasts {steps} steps at decay {decay:g}"
