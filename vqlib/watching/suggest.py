"""An adapter for a layer that is not recognised, written out for its owner to copy."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from itertools import product

import torch
from torch import Tensor, nn

from vqlib.watching.libraries import COUNTS, INTEGERS, LAYOUTS, looks_near, without_padding

WIDTHS = 4  # that are tried
SQUARE = 64  # tokens, for layers that want a picture's; else one more than features
COMMONEST = {
    "indices": "output[1]",
    "quantized": "output[0]",
    "loss": "output[2]",
    "fed": "z",
    "shape": None,
}
USUAL = (
    "vqlib.Adapter(indices=lambda m, output: output[1], codebook=lambda m: m.embedding.weight, "
    "counts=lambda m: None)"
)


def looks_held(module: nn.Module) -> bool:
    """Whether the layer itself holds a buffer (K, D) or (Q, K, D), as codebooks are held."""
    return any(_is_book(b) for b in module._buffers.values())


def likeliness(module: nn.Module) -> tuple[bool, bool]:
    """The larger, the likelier the layer is a quantizer."""
    return _book(module) is not None, looks_near(module)


def adapter_text(module: nn.Module) -> str:
    """``vqlib.Adapter(...)`` with the buffers, the outputs and the call of this layer.

    The layer is called on copies, in evaluation mode, to see what it gives; what cannot be
    seen stands as in the commonest layer, and ``...`` for codes that it does not give.
    """
    book = _book(module)
    if book is None:
        return USUAL
    name, held = book
    extra = extra_arguments(module)
    given = _given(module, held, extra)
    indices, name = _levels(given, name, held) if held.dim() == 3 else (given["indices"], name)
    parts = [f"indices=lambda m, output: {indices}", f"codebook=lambda m: {name}"]
    counts = next((n for n in COUNTS if isinstance(getattr(module, n, None), Tensor)), None)
    if counts and held.dim() == 2:
        parts.append(f"counts=lambda m: m.{counts}")
    parts += [
        f"{what}=lambda output: {given[what]}"
        for what in ("quantized", "loss")
        if given[what] != COMMONEST[what]
    ]
    if extra or given["fed"] != "z":
        fed = ", ".join([given["fed"], *(f"{name}=..." for name in extra)])
        parts.append(f"call=lambda m, z: m({fed})")
    return f"vqlib.Adapter({', '.join(parts)})"


def extra_arguments(module: nn.Module) -> list[str]:
    """Names of what ``forward`` needs besides its first argument."""
    try:
        given = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in given[1:] if p.default is p.empty and p.kind not in kinds]


def _is_book(held) -> bool:
    return (
        isinstance(held, Tensor)
        and held.dim() in (2, 3)
        and held.is_floating_point()
        and held.shape[-2] > 1
    )


def _book(module: nn.Module) -> tuple[str, Tensor] | None:
    """(expression, tensor) of the largest buffer, else parameter, else embedding's weight.

    The padding row of an embedding is no code.
    """
    tables = [("m", module)] if isinstance(module, nn.Embedding) else []
    tables += [
        (f"m.{n}", part) for n, part in module.named_children() if isinstance(part, nn.Embedding)
    ]
    for name, table in tables:
        book = without_padding(table)
        return f"{name}.weight{'' if book is table.weight else '[:-1]'}", book
    for owned in (module._buffers, module._parameters):
        books = {name: held for name, held in owned.items() if _is_book(held)}
        if books:
            # of several of one size the first is the codebook; sums come after it
            name = max(books, key=lambda n: books[n].numel())
            return f"m.{name}", books[name]
    return None


def _levels(given: dict, name: str, held: Tensor) -> tuple[str, str]:
    """(indices, codebook) of levels (Q, K, D): each its own, or the first one alone."""
    shape = given["shape"]
    axis = next(
        (a for a in (-1, 0, 1) if shape and shape[a : a + 1 or None] == held.shape[:1]), None
    )
    if axis is None:
        return given["indices"], f"{name}[0]"
    return f"{given['indices']}.unbind({axis})", f"list({name})"


@torch.no_grad()
def _given(module: nn.Module, book: Tensor, extra: list[str]) -> dict:
    """Expressions for what the layer gives, and the ``shape`` of its indices (None: not seen)."""
    device = book.device
    fed = [
        torch.zeros(n, dim, dtype=book.dtype, device=device)
        for dim in _widths(module, book)
        for n in ((dim + 1, SQUARE) if dim + 1 != SQUARE else (SQUARE,))
    ]
    fillings = (lambda x: 1.0, lambda x: x) if extra else (lambda x: 1.0,)
    simplest = sorted(LAYOUTS, key=lambda layout: len(layout.text))
    first = silent = None
    with torch.random.fork_rng(devices=[device] if book.is_cuda else []):
        for z, filling, (text, form, axis) in product(fed, fillings, simplest):
            shaped = form(z)
            try:
                probe = copy.deepcopy(module).eval()  # anew: a first call may set the codes
                output = probe(shaped, **{name: filling(shaped) for name in extra})
            except Exception:  # whatever a layer raises on what it does not take, or on a copy
                continue
            seen = _read(output, z, axis) | {"fed": text}
            if seen["shape"] is None:
                silent = silent or seen
                continue
            first = first or seen
            if seen["shape"].numel() % len(z) == 0:  # else features may have been taken for tokens
                return seen
    return first or silent or COMMONEST


def _read(output, z: Tensor, axis: int) -> dict:
    """Expressions for what an output holds; the ``shape`` is None if there are no codes in it."""
    parts = list(_paths(output))
    codes = [(p, t) for p, t in parts if t.dtype in INTEGERS]
    path, indices = max(codes, key=lambda pair: pair[1].numel()) if codes else ("...", None)
    floats = [(p, t) for p, t in parts if t.is_floating_point()]
    same = [p + _to_rows(t, z, axis) for p, t in floats if t.numel() == z.numel()]
    single = [p for p, t in floats if t.numel() == 1]
    return {
        "indices": path,
        "shape": None if indices is None else indices.shape,
        "quantized": next(iter(same), COMMONEST["quantized"]),
        "loss": single[0] if len(single) == 1 else "None",
    }


def _to_rows(output: Tensor, z: Tensor, axis: int) -> str:
    """What makes rows (N, D) of an output with as many numbers as the tokens z."""
    moved = "" if axis == -1 or output.shape == z.shape else f".movedim({axis}, -1)"
    return moved if output.dim() == 2 else f"{moved}.flatten(0, -2)"


def _widths(module: nn.Module, book: Tensor) -> list[int]:
    """Features that a token may have: a code's, or what a projection before the codes takes."""
    taken = ("in_features", "in_channels")
    projected = [getattr(m, n) for m in module.modules() for n in taken if hasattr(m, n)]
    return list(dict.fromkeys([book.shape[-1], *projected]))[:WIDTHS]


def _paths(output, path: str = "output") -> Iterator[tuple[str, Tensor]]:
    """(expression, tensor) of all tensors in nested tuples, lists, dicts, and in a plain object."""
    if isinstance(output, Tensor):
        yield path, output
    elif isinstance(output, Mapping):
        for key, part in output.items():
            yield from _paths(part, f"{path}[{key!r}]")
    elif isinstance(output, list | tuple):
        for place, part in enumerate(output):
            yield from _paths(part, f"{path}[{place}]")
    else:  # an object may hold itself: no deeper
        held = getattr(output, "__dict__", {}).items()
        yield from ((f"{path}.{name}", part) for name, part in held if isinstance(part, Tensor))
