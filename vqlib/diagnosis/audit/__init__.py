"""Behavioural tests of any quantizer: experiments on copies of it, each answer with its numbers.

Nothing is concluded from source code or from a class's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from vqlib.diagnosis.audit.bench import Bench, NotFinite, Rejected, made, own_randomness
from vqlib.diagnosis.audit.donors import duplicate_codes, threshold_above_share
from vqlib.diagnosis.audit.processes import NAME as RANKS
from vqlib.diagnosis.audit.processes import ranks_disagree
from vqlib.diagnosis.audit.resetting import (
    kept_counts,
    patience_without_resets,
    reset_does_not_survive,
    reset_never_fires,
    reset_unseen,
    starve,
)
from vqlib.diagnosis.audit.starting import (
    cold_start,
    first_step_explosion,
    loss_hides_collapse,
    narrow_start,
    start,
)
from vqlib.diagnosis.audit.states import evaluation_changes_counts, not_reproducible
from vqlib.diagnosis.audit.table import audit_table
from vqlib.diagnosis.findings import Diagnosis, Evidence, Finding, any_grave, unknown
from vqlib.quantization.ranges import whole
from vqlib.watching.adapters import PLAIN, Adapter, adapter_for
from vqlib.watching.suggest import adapter_text, extra_arguments

__all__ = ["audit", "audit_table"]

CODEBOOK = (
    "cold-start",
    "first-step-explosion",
    "reset-never-fires",
    "reset-does-not-survive",
    "duplicate-codes",
    "threshold-above-share",
)
STEPS = 20  # of a layer whose forward moves no code: no reset to wait for
ALWAYS = ("evaluation-changes-counts", "not-reproducible", "loss-hides-collapse")


def audit(
    subject: nn.Module | Callable[[], nn.Module],
    *,
    adapter: Adapter | None = None,
    dim: int | None = None,
    tokens: int | None = None,
    ranks: bool = True,
    seed: int = 0,
    timeout: float = 60.0,
) -> Diagnosis:
    """Examine a quantizer by experiments on copies of it.

    The subject itself is never run, and torch's generators are afterwards as they were. Of a
    layer with several codebooks the first is examined.

    Args:
        subject: a quantizer, or a function without arguments that makes one. Prefer the
            function: only it shows how the layer starts, and what it does when it is built in
            a group of processes.
        adapter: how to read the layer; None: found by `vqlib.watching.adapters.adapter_for`.
        dim: of a token; None: as the adapter's settings or the codebook say.
        tokens: N, the tokens of a step of your training; whether a threshold can be reached
            depends on it. None: a few for each code.
        ranks: also run it in two processes (takes some seconds).
        seed: of the inputs, and of torch's generator during the audit.
        timeout: seconds that the two processes may take.

    Returns:
        A `Diagnosis` with one answer for each question; "not applicable" and "unknown" say why.
        If the layer gives NaN or infinity, "unstable-training" says what is not finite, and
        nothing else is examined.

    Raises:
        TypeError: the subject is no module and makes none, or cannot be copied, or is not
            recognised and no adapter is given; or the adapter fails or gives a wrong type.
        ValueError: dim or tokens is out of range, the layer rejects tokens of that shape, the
            adapter gives wrong values, or the module is on the meta device.
    """
    for name, value in (("dim", dim), ("tokens", tokens)):
        if value is not None:
            whole(name, value)
    if not isinstance(adapter, Adapter | None):
        raise TypeError(f"adapter must be a vqlib.Adapter or None, got {adapter!r}")
    module, fresh = made(subject, seed)
    adapter = adapter or adapter_for(module)
    if adapter is None:
        raise TypeError(_not_recognised(module))
    if adapter is PLAIN and (extra := extra_arguments(module)):
        raise ValueError(
            f"the forward of {type(module).__name__} needs `{'`, `'.join(extra)}` besides the "
            f"tokens; say what to give it in call: adapter={adapter_text(module)}"
        )
    bench = Bench(module, adapter, dim, fresh, tokens, seed)
    with own_randomness(seed, bench.device):
        bench.check()
        make = None if isinstance(subject, nn.Module) else subject
        answers = _until_not_finite(_answers(bench, make if ranks else None, ranks, timeout), ranks)
    title = f"audit of {adapter.name or type(module).__name__}"
    if bench.codebooks > 1:
        title += f", codebook 1 of {bench.codebooks}"
    return Diagnosis.of(title, [*answers, *_healthy(answers)])


def _not_recognised(module: nn.Module) -> str:
    """What to do: audit a layer inside, or give an adapter, written out for this layer."""
    name = type(module).__name__
    inside = next((n for n, m in module.named_modules() if n and adapter_for(m)), None)
    if inside is not None:
        inner = type(module.get_submodule(inside)).__name__
        return (
            f"{name} is not recognised as one quantizer, but its {inside!r} ({inner}) is: audit "
            f"that, with vqlib.audit(lambda: make().get_submodule({inside!r})), or give adapter="
        )
    return f"{name} is not recognised; say how to read it: adapter={adapter_text(module)}"


def _until_not_finite(answers: Iterator[Finding], ranks: bool) -> list[Finding]:
    """All answers; once the layer gives NaN, the questions left are unknown."""
    done = []
    try:
        for answer in answers:
            done.append(answer)
    except NotFinite as stop:
        asked = {answer.id for answer in done}
        why = "The layer gives numbers that are not finite: see unstable-training."
        done.append(stop.finding)
        done += [
            unknown(question, why, "a layer whose numbers stay finite")
            for question in (*CODEBOOK, *ALWAYS, *([RANKS] if ranks else []))
            if question not in asked
        ]
    return done


def _answers(
    bench: Bench, make: Callable[[], nn.Module] | None, ranks: bool, timeout: float
) -> Iterator[Finding]:
    started = start(bench) if bench.book(bench.pristine) is not None else None
    if started is None or started.first is None:
        cause = (
            "It holds no codebook."
            if started is None
            else "Its forward pass does not move the codebook; an optimizer may."
            if any(p.requires_grad for p in bench.pristine.parameters())
            else "Its forward pass does not move the codebook, and it has no parameters to train."
        )
        kept = kept_counts(bench, started.settled) if started else None
        for question in (*CODEBOOK, *([RANKS] if ranks else [])):
            if kept and question == "reset-never-fires":
                yield reset_unseen(kept)
            else:
                yield Finding(question, "not applicable", cause=cause)
        settled = bench.copy() if started is None else started.settled
        yield _asked("evaluation-changes-counts", evaluation_changes_counts, bench, settled, STEPS)
        yield _asked("not-reproducible", not_reproducible, bench, None)
        yield _asked("loss-hides-collapse", loss_hides_collapse, bench, bench.copy(settled))
        return
    settled = started.settled
    starved = starve(bench, settled, started.first)
    narrow, steps = narrow_start(bench)
    yield _asked("cold-start", cold_start, bench, started)
    yield _asked("first-step-explosion", first_step_explosion, bench, steps)
    yield _asked("reset-never-fires", reset_never_fires, bench, starved)
    yield _asked("reset-does-not-survive", reset_does_not_survive, bench, starved)
    yield _asked("duplicate-codes", duplicate_codes, bench, starved)
    yield _asked("threshold-above-share", threshold_above_share, bench, settled, starved)
    acted = starved.put or starved.said
    steps = starved.steps + bench.every + 3 if acted else patience_without_resets(bench)
    yield _asked("evaluation-changes-counts", evaluation_changes_counts, bench, settled, steps)
    yield _asked("not-reproducible", not_reproducible, bench, starved)
    yield _asked("loss-hides-collapse", loss_hides_collapse, bench, narrow)
    if ranks:
        most = max(60, 2 * bench.every + 5)  # else a seldom reset is not seen
        yield _asked(RANKS, ranks_disagree, bench, make, min(starved.steps + 5, most), timeout)


def _asked(name: str, question: Callable[..., Finding], *given: object) -> Finding:
    """Its answer; unknown if the layer takes no step of as few or as many tokens as it needs."""
    try:
        return question(*given)
    except Rejected as error:
        return unknown(name, f"No answer: {error}.", "a layer that takes any number of tokens")


def _healthy(answers: list[Finding]) -> list[Finding]:
    clear = sum(a.severity == "clear" for a in answers)
    # a layer that keeps counts probably has a reset: nothing is said of one not examined
    unasked = any(a.id == "reset-never-fires" and a.severity == "unknown" for a in answers)
    if any_grave(answers) or not clear or unasked:
        return []
    counted = Evidence("checks that found nothing", clear, f"of {len(answers)}")
    return [Finding("healthy", "note", (counted,), "No experiment found a fault.")]
