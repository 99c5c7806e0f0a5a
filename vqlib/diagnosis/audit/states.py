"""What must not change, and what must come out the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqlib.diagnosis.audit.bench import FEW, Bench, reseed, state_of
from vqlib.diagnosis.audit.resetting import Starving
from vqlib.diagnosis.findings import Evidence, Finding


def evaluation_changes_counts(bench: Bench, settled: nn.Module, steps: int) -> Finding:
    """Three passes in evaluation mode on data in one place: which state changes?

    If a tensor does, training goes on for ``steps`` with and without the evaluation: does any
    of it read what changed?
    """
    name = "evaluation-changes-counts"
    changed, kept = _changed_by_evaluation(bench, settled)
    window = "3 evaluation passes"
    evidence = [Evidence("parts of the state that change", len(changed), "parts", window)]
    if changed:
        evidence.append(Evidence("they are", ", ".join(sorted(changed)[:6])))
        heavy = any(isinstance(value, Tensor) for value in changed.values())
        draws = bool(changed.keys() & _generators(bench.pristine))  # a start draws too
        differs = _first_difference(bench, settled, steps) if heavy and not draws else None
        if heavy and not draws and differs is None and changed.keys() == kept:
            return Finding(name, "clear", tuple(evidence))
        if heavy and not draws and differs is None:
            same = Evidence("training steps the same to the bit", steps, "steps", "afterwards")
            return Finding(
                name,
                "note",
                (*evidence, same),
                "Evaluation changes a statistic; training is the same to the bit.",
                "Update it only if self.training is true, or it mixes training and validation.",
            )
        if differs:
            evidence.append(Evidence("first training step that differs", differs, "", "afterwards"))
        return Finding(
            name,
            "critical" if heavy else "note",
            tuple(evidence),
            "A forward pass in evaluation mode updates what training uses.",
            "Update state only if self.training is true.",
        )
    first = {}
    if bench.fresh is not False:
        first, kept = _changed_by_evaluation(bench, bench.pristine, untrained=True)
        first = {name: value for name, value in first.items() if name not in kept}
    if any(isinstance(value, Tensor) for value in first.values()):
        evidence.append(Evidence("before the first training step", ", ".join(sorted(first)[:6])))
        return Finding(
            name,
            "note",
            tuple(evidence),
            "Evaluation changes nothing in a trained layer, but an evaluation before any training "
            "initialises the layer from evaluation data.",
            "Train at least one step before the first evaluation.",
        )
    return Finding(name, "clear", tuple(evidence))


def _changed_by_evaluation(
    bench: Bench, module: nn.Module, untrained: bool = False
) -> tuple[dict, set[str]]:
    """({name: value} of what changed, names of what was not there and comes from no data).

    The latter is computed from the rest of the state, and kept: a quotient of sum and count, say.
    """
    before, states = state_of(module), []
    for _ in range(2):
        evaluated, place = bench.copy(module).eval(), bench.direction()
        for _ in range(3):
            bench.call(evaluated, bench.ball(place, bench.few), untrained=untrained)
        states.append(state_of(evaluated))
    after, other = states
    names = before.keys() | after.keys()
    changed = {n: after.get(n) for n in names if not _same(before.get(n), after.get(n))}
    return changed, {n for n in changed if n not in before and _same(after[n], other.get(n))}


def _first_difference(bench: Bench, settled: nn.Module, steps: int) -> int | None:
    """The first training step, from 1, whose codes or output an evaluation before it changed.

    None: none of ``steps``. All tokens lie in one place, so that a reset acts, if there is
    one. The evaluation has passes enough to bring it forward by a check.
    """
    plain, evaluated = bench.copy(settled), bench.copy(settled).eval()
    place, elsewhere = bench.direction(), bench.direction()
    for _ in range(3 + bench.every):
        bench.call(evaluated, bench.ball(elsewhere, bench.few))
    for step in range(1, steps + 1):
        z, results = bench.ball(place, bench.starving), []
        for module in (plain, evaluated):
            reseed(bench.seed + step, bench.device)
            output = bench.call(module.train(), z)
            results.append([bench.reader.quantized(output, z), *_codes(bench, module, output, z)])
        if not _alike(*([r] for r in results)):
            return step
    return None


def _generators(module: nn.Module) -> set[str]:
    """Names, as in `state_of`, of the generators that a module and its parts hold."""
    return {
        f"{path}.{key}" if path else key
        for path, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, torch.Generator)
    }


def _same(left, right) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        # bytes, so that a NaN equals itself
        return (
            left.shape == right.shape
            and left.dtype == right.dtype
            and torch.equal(
                left.contiguous().reshape(-1).view(torch.uint8),
                right.contiguous().reshape(-1).view(torch.uint8),
            )
        )
    return type(left) is type(right) and left == right


def not_reproducible(bench: Bench, starved: Starving | None) -> Finding:
    """One start, one seed, the same tokens: the same indices and codes?"""
    name = "not-reproducible"
    tokens = [bench.broad(bench.few), bench.broad(bench.few)]
    cases = [(bench.pristine, tokens)]
    if starved is not None and starved.after is not None:
        # the step at which most codes were reset is played again: resets are what draws
        cases.append((starved.before, [starved.reset.z[:FEW]]))
    results = [[_played(bench, *case, seed) for case in cases] for seed in (0, 0, 1)]
    window = "first 2 steps" + (" and a step that resets" if len(cases) > 1 else "")
    own = bool(_generators(bench.pristine))
    again = _alike(results[0], results[1])
    other = _alike(results[0], results[2])
    evidence = (
        Evidence("same result from the same torch seed", _yes(again), "", window),
        Evidence("same result from another torch seed", _yes(other), "", window),
    )
    if not again:
        return Finding(
            name,
            "critical",
            evidence,
            "The layer draws random numbers that no seed controls.",
            "Draw from a generator that has its own seed.",
        )
    if other:
        return Finding(name, "clear", evidence)
    if own:
        return Finding(
            name,
            "warning",
            evidence,
            "The layer has its own generator but also draws from the process's generator, so its "
            "seed does not determine the result.",
            "Pass the layer's generator to every draw.",
        )
    return Finding(
        name,
        "clear",
        evidence,
        "It draws from the process's generator: anything else that draws there changes its codes.",
        "Call torch.manual_seed right before training to repeat a run.",
    )


def _played(bench: Bench, module: nn.Module, tokens: list[Tensor], seed: int) -> list[Tensor]:
    module = bench.copy(module).train()
    reseed(bench.seed + 1000 + seed, bench.device)
    results = []
    for z in tokens:
        results += _codes(bench, module, bench.call(module, z), z)
    return results


def _codes(bench: Bench, module: nn.Module, output, z: Tensor) -> list[Tensor]:
    """The codes chosen for tokens z, and the codebook, if there is one."""
    book = bench.book(module)
    return [bench.indices(module, output, z), *([] if book is None else [book])]


def _alike(left: list[list[Tensor]], right: list[list[Tensor]]) -> bool:
    return all(
        _same(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True)
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
