"""How the quantizer layers of other libraries are read. None of those libraries is imported.

A reader gets a layer, and what its forward returned: quantized vectors, indices and losses,
in any order and nesting.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vqlib.watching.matching import row_indices

LOOKS_NEAR = re.compile(r"quanti[sz]|codebook|vq", re.IGNORECASE)
GRIDS = re.compile(
    r"(?:FS|LF|BS)Q(?:uantizer)?$|FiniteScalar|Look-?upFree|BinarySpherical", re.IGNORECASE
)
GRID_SIZES = ("codebook_size", "n_codes", "num_codes", "num_embeddings", "num_dimensions")
KINDS = {  # {setting of `vqlib.diagnosis.logs.Settings`: how the class is called}
    "projected": re.compile(r"sim_?vq", re.IGNORECASE),
    "gumbel": re.compile(r"gumbel", re.IGNORECASE),
}
TO_INDICES = ("codes_to_indices", "codes_to_indexes", "get_indices_from_latents")
MOST_CODES = 2**24  # of a grid, for its codes are counted one by one
RESTARTS = re.compile(r"re(?:place|start|init|vive|set)|expire", re.IGNORECASE)
CODEBOOKS = ("codebook", "embedding", "embed", "embeddings", "codebooks", "_embedding", "_codebook")
COUNTS = (  # moving averages of hits first; tallies of use after them
    "cluster_size",
    "ema_cluster_size",
    "_ema_cluster_size",
    "cluster_size_ema",
    "cluster_usage",
    "embedding_count",
    "embed_count",
    "ema_count",
    "_ema_count",
    "code_count",
    "cluster_count",
    "counts",
    "count",
    "k_elem",
    "N",
    "usage",
    "code_usage",
    "codebook_usage",
    "usage_count",
    "usage_counts",
)
# {setting: its names}; those of the second table mean something else in a layer without counts
SETTINGS = {
    "decay": ("decay", "ema_decay", "_decay"),
    "beta": ("beta",),
    "dead_code_threshold": (
        "threshold_ema_dead_code",
        "dead_code_threshold",
        "threshold_dead_code",
        "dead_threshold",
        "reset_threshold",
        "restart_threshold",
    ),
    "reset_interval": ("reset_interval", "reset_every", "check_unused_every"),
}
SETTINGS_WITH_COUNTS = {"decay": ("gamma", "mu"), "dead_code_threshold": ("threshold",)}
MOST = {"decay": 1.0}
CHANNELS_FIRST = {"transformers": True, "diffusers": True, "vqlib": False}
CHANNELS_LAST = ("FiniteScalarQuantization", "GumbelVectorQuantizer")  # of transformers' classes
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8)
HALVES = (torch.float16, torch.bfloat16)


def is_a(module: nn.Module, library: str, *names: str) -> bool:
    """Whether the layer's class, or one it inherits from, is one of ``library``'s ``names``."""
    return any(
        cls.__module__.split(".")[0] == library and cls.__name__ in names
        for cls in type(module).__mro__
    )


def looks_near(module: nn.Module) -> bool:
    return bool(LOOKS_NEAR.search(type(module).__name__))


def refuse_lazy(module: nn.Module, held) -> None:
    """Raises ValueError if ``held`` is a tensor without a shape yet."""
    if nn.parameter.is_lazy(held):
        raise ValueError(
            f"{type(module).__name__} is lazy and not initialised yet, so that its codebook has "
            "no shape: call the model once first"
        )


def tensors(output) -> Iterator[Tensor]:
    """All tensors in an output of nested tuples, lists and dicts."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            yield from tensors(part)


def copied(module: nn.Module) -> nn.Module:
    """A deep copy, also of a layer whose weights an old `weight_norm` computes anew at each call.

    Raises TypeError or RuntimeError if the module cannot be copied.
    """
    held = (value for part in module.modules() for value in vars(part).values())
    derived = (t for t in held if isinstance(t, Tensor) and not t.is_leaf)
    return copy.deepcopy(module, {id(t): t.detach().clone() for t in derived})


def integers(output) -> list[Tensor]:
    """The integer tensors in an output; of a dict that has ``indices``, those alone."""
    if isinstance(output, Mapping) and "indices" in output:
        return [t for t in tensors(output["indices"]) if t.dtype in INTEGERS]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [t for part in output for t in integers(part)]
    return [t for t in tensors(output) if t.dtype in INTEGERS]


def inexact(half: torch.dtype) -> str:
    """Why a ``half`` type holds no indices."""
    most = round(2 / torch.finfo(half).eps)
    return f"{half}, in which whole numbers above {most:,} are not exact"


# --- vector-quantize-pytorch ---


def vqp_sums(vq: nn.Module) -> bool:
    """Whether it adds up the hits of all processes before it counts them."""
    return getattr(vq._codebook, "all_reduce_fn", None) is torch.distributed.all_reduce


def split_last(values: Tensor, several: bool) -> Tensor | list[Tensor]:
    """One tensor a codebook if the last dimension runs over codebooks."""
    return list(values.unbind(-1)) if several else values


def vqp_indices(vq: nn.Module, output) -> Tensor | list[Tensor] | None:
    """None if the layer was given its indices and returned a cross entropy instead."""
    if len(output) < 3:
        return None
    return split_last(output[1], vq.separate_codebook_per_head and vq.heads > 1)


def vqp_codebook(vq: nn.Module) -> Tensor | list[Tensor]:
    books = vq._codebook.embed
    return books[0] if len(books) == 1 else list(books)


def vqp_counts(vq: nn.Module) -> Tensor | list[Tensor] | None:
    book = vq._codebook
    if not (book.ema_update or book.has_dead_code_replacement):
        return None
    return book.cluster_size[0] if len(book.cluster_size) == 1 else list(book.cluster_size)


def vqp_settings(vq: nn.Module) -> dict:
    book = vq._codebook
    threshold = float(book.threshold_ema_dead_code)
    known = {
        "codebook_size": vq.codebook_size,
        "dim": book.embed.shape[-1],
        "beta": float(vq.commitment_weight),
        "dead_code_threshold": threshold,
        "reset_relative": False,
        "reset_interval": 1,
    }
    if threshold:
        known["reset_refill"] = float(book.reset_cluster_size)
    # with such an optimizer a forward counts twice
    twice = getattr(vq, "in_place_codebook_optimizer", None) is not None
    if book.ema_update or (threshold and not twice):
        known["decay"] = float(book.decay)
    if not bool(book.initted):
        known["kmeans_init"] = True
    elif bool((book.cluster_size == 1).all()):  # fresh: whoever is initialised did not wait
        known["kmeans_init"] = False
    return known


def call_in_layout(vq: nn.Module, z: Tensor) -> tuple:
    """``vq`` on tokens z (N, D), in the layout it asks for; quantized comes back as (N, D)."""
    first = channels_first(vq)
    shaped = z.T[None] if first else z[None]
    flat = 2 if getattr(vq, "accept_3d_fmap", False) else getattr(vq, "accept_image_fmap", False)
    output = vq(shaped[(..., *[None] * flat)])
    quantized = output[0].movedim(1, -1) if first else output[0]
    return quantized.reshape(len(z), -1), *output[1:]


def channels_first(module: nn.Module) -> bool | None:
    """Whether the layer's tokens lie along dimension 1; None if it does not say."""
    if getattr(module, "accept_image_fmap", False) or getattr(module, "accept_3d_fmap", False):
        return True
    if hasattr(module, "channel_last"):
        return not module.channel_last
    if type(module).__name__.endswith(CHANNELS_LAST):
        return False
    library = type(module).__module__.split(".")[0]
    return getattr(module, "channel_first", CHANNELS_FIRST.get(library))


@torch.no_grad()
def sim_vq_codebook(vq: nn.Module) -> Tensor:
    return vq.codebook


def lattice_indices(q: nn.Module, output) -> Tensor | list[Tensor] | None:
    """FSQ's and LFQ's."""
    indices = max(integers(output), key=Tensor.numel, default=None)
    if indices is None:
        indices = _indices_of_codes(q, plain_quantized(output))
    return None if indices is None else split_last(indices, getattr(q, "num_codebooks", 1) > 1)


def _indices_of_codes(q: nn.Module, codes: Tensor | None) -> Tensor | None:
    """By the layer's own method, as a grid that returns no indices may have one."""
    method = next((m for n in TO_INDICES if callable(m := getattr(q, n, None))), None)
    found = None if method is None or codes is None else method(codes)
    return found if isinstance(found, Tensor) and found.dtype in INTEGERS else None


def lattice_settings(q: nn.Module) -> dict:
    if not getattr(q, "return_indices", True):
        raise ValueError(
            f"{type(q).__name__}(return_indices=False) shows no indices: leave return_indices on"
        )
    size = int(getattr(q, "codebook_size", 0) or len(q.codebook))
    return {"codebook_size": size, "codebooks": getattr(q, "num_codebooks", 1)}


def is_grid(module: nn.Module) -> bool:
    """Whether the layer is called like a finite scalar or lookup-free one, as copies of these are.

    Nothing in it is trained, but for projections.
    """
    return (
        bool(GRIDS.search(type(module).__name__))
        and grid_size(module) is not None
        and not isinstance(getattr(module, "codebook", None), nn.Module | nn.Parameter)
    )


def grid_size(module: nn.Module) -> int | None:
    """K of a grid that says it; None if it does not, or if it has too many codes to be counted."""
    said = (getattr(module, name, None) for name in GRID_SIZES)
    size = next((n for n in said if isinstance(n, int) and n > 1), None)
    held = module._buffers.get("codebook")
    size = len(held) if size is None and held is not None and held.dim() == 2 else size
    return size if size is not None and size <= MOST_CODES else None


def grid_settings(module: nn.Module) -> dict:
    known = {"codebook_size": grid_size(module), "codebooks": getattr(module, "num_codebooks", 1)}
    said = [getattr(module, name, None) for name in ("dim", "embed_dim", "codebook_dim")]
    said += [len(module._buffers[name]) for name in ("_basis", "basis") if name in module._buffers]
    dim = next((n for n in said if isinstance(n, int) and n > 0), None)
    return known | ({"dim": dim} if dim else {})


# --- transformers ---


def codec_codebooks(model: nn.Module) -> list[Tensor]:
    """Of the residual quantizers inside an audio codec, level by level."""
    books = [m for m in model.modules() if type(m).__name__.endswith("EuclideanCodebook")]
    return [_codec_codebook(book) for book in books]


def _codec_codebook(book: nn.Module) -> Tensor:
    if "embed_sum" not in book._buffers:
        return book.embed
    # Mimi's; its property would keep the quotient inside the layer
    return book.embed_sum / book.cluster_usage.clamp(min=book.epsilon)[:, None]


def codec_indices(model: nn.Module, output) -> list[Tensor]:
    """``audio_codes`` (..., levels, length) by level; levels that were not used stay empty."""
    codes = output["audio_codes"] if isinstance(output, Mapping) else output[0]
    levels = len(codec_codebooks(model))
    return [*codes.unbind(-2), *[codes.new_empty(0)] * (levels - codes.shape[-2])]


def gumbel_codebooks(q: nn.Module) -> list[Tensor]:
    return list(q.codevectors[0].view(q.num_groups, q.num_vars, -1))


@torch.no_grad()
def gumbel_indices(q: nn.Module, output) -> list[Tensor]:
    """The codes drawn, found again from the vectors (B, T, G d) returned: each is one row."""
    groups = output[0].float().chunk(q.num_groups, dim=-1)
    books = gumbel_codebooks(q)
    return [torch.cdist(g, b.float()).argmin(-1) for g, b in zip(groups, books, strict=True)]


# --- anything that keeps a codebook under a usual name and returns integers ---


def plain_codebook(module: nn.Module) -> Tensor | None:
    """(K, D), from an attribute that holds it or a module with such a ``weight``.

    A quantizer that is itself an `nn.Embedding` holds it as its own weight.
    """
    if isinstance(module, nn.Embedding):
        refuse_lazy(module, module.weight)
        return without_padding(module)
    for name in CODEBOOKS:
        held = _table(module, name)
        if held is not None:
            counts = _some_counts(module)
            on_its_side = counts is not None and len(counts) == held.shape[1] != len(held)
            return held.T if on_its_side else held
    return None


def restarts(module: nn.Module) -> bool:
    """Whether the layer has a method by which, as it is called, codes may be set anew."""
    own = {
        name
        for kind in type(module).__mro__
        if kind not in nn.Module.__mro__
        for name in vars(kind)
    }
    own -= {"reset_parameters"}
    return any(RESTARTS.search(name) and callable(getattr(module, name, None)) for name in own)


def _table(module: nn.Module, name: str) -> Tensor | None:
    """What ``name`` holds, or its ``weight``, if that is a matrix of floats."""
    held = getattr(module, name, None)
    held = getattr(held, "weight", held)
    refuse_lazy(module, held)
    fits = isinstance(held, Tensor) and held.dim() == 2 and held.is_floating_point()
    return held if fits else None


def without_padding(table: nn.Embedding) -> Tensor:
    """(K, D): a last row that pads is no code."""
    last = table.padding_idx == table.num_embeddings - 1
    return table.weight[:-1] if last else table.weight


def plain_counts(module: nn.Module) -> Tensor | None:
    """(K,) from a usual name; None if what has that name counts something else."""
    counts = _some_counts(module)
    return counts if counts is not None and len(counts) == len(plain_codebook(module)) else None


def _some_counts(module: nn.Module) -> Tensor | None:
    """From a usual name, on the layer or on the module that holds its codebook."""
    for owner in _owners(module):
        for name in COUNTS:
            held = getattr(owner, name, None)
            if isinstance(held, Tensor) and held.dim() == 1 and held.dtype != torch.bool:
                return held
    return None


def _owners(module: nn.Module) -> list:
    """The layer, and what it holds under the name of a codebook."""
    return [module, *(getattr(module, name, None) for name in CODEBOOKS)]


def is_plain(module: nn.Module) -> bool:
    # a scripted class has no forward to look at, only its modules have
    called = getattr(type(module), "forward", None) not in (nn.Module.forward, nn.Embedding.forward)
    return called and looks_near(module) and plain_codebook(module) is not None


def plain_indices(module: nn.Module, output) -> Tensor:
    """The integer tensor; of several the largest that is no one-hot matrix, or what that marks.

    Without one, the rows of the codebook that the quantized output is made of. Raises ValueError
    if it is not.
    """
    if is_grid(module):
        return lattice_indices(module, output)
    size, dim = plain_codebook(module).shape
    found = integers(output)
    narrow = [t for t in found if not (t.dim() > 1 and t.shape[-1] == size)]
    if narrow:
        return max(narrow, key=Tensor.numel)
    quantized = plain_quantized(output)
    if not found:
        marked = None if quantized is None else _marked(output, quantized, size, dim)
        return _read_off(module, output) if marked is None else marked
    widest = max(found, key=Tensor.numel)
    one_a_token = quantized is not None and quantized.numel() == widest.numel() * dim
    return widest.argmax(-1) if not one_a_token and _one_hot(widest) else widest


def _marked(output, quantized: Tensor, size: int, dim: int) -> Tensor | None:
    """The codes that one-hot rows of floats mark, a row of K for each token of ``quantized``."""
    shape = (quantized.numel() // dim, size)
    for t in tensors(output):
        rows = t.detach().reshape(-1, t.shape[-1]) if t.dim() > 1 else t
        if t is not quantized and rows.shape == shape and _one_hot(rows):
            return rows.argmax(-1)
    return None


def _read_off(module: nn.Module, output) -> Tensor:
    quantized, codebook = plain_quantized(output), plain_codebook(module)
    for axis in range(0 if quantized is None else quantized.dim()):
        if quantized.shape[axis] == codebook.shape[1]:
            rows = row_indices(quantized.movedim(axis, -1), codebook)
            if rows is not None:
                return rows
    raise ValueError(_no_indices(module, _rounded(output, codebook.shape[1])))


def _rounded(output, dim: int) -> torch.dtype | None:
    """The half type of whole numbers in ``output``, one for each vector (D,) in it; else None."""
    found = list(tensors(output))
    for t in found:
        one_a_vector = any(t.numel() * dim == other.numel() for other in found)
        if t.dtype in HALVES and one_a_vector and bool(((t >= 0) & (t == t.floor())).all()):
            return t.dtype
    return None


def _no_indices(module: nn.Module, half: torch.dtype | None) -> str:
    """What is missing, and the adapter to write; ``half``: the type in which indices are there."""
    kind = type(module).__name__
    name = next((n for n in CODEBOOKS if _table(module, n) is not None), "weight")
    book = f"m.{name}" if isinstance(getattr(module, name), Tensor) else f"m.{name}.weight"
    got = f" (they come in {inexact(half)}: return them as integers)" if half else ""
    return (
        f"it returns no integers as indices{got}, and its output is not made of single rows of its "
        "codebook, so the codes that it chose are not known. Keep them in its forward, for example "
        f"as self.codes = indices, and say so: adapters={{{kind}: vqlib.Adapter("
        f"indices=lambda m, output: m.codes, codebook=lambda m: {book})}} for a watch, "
        "adapter=vqlib.Adapter(...) for an audit"
    )


def _one_hot(rows: Tensor) -> bool:
    return bool(((rows == 0) | (rows == 1)).all() and (rows.sum(-1) == 1).all())


def plain_quantized(output) -> Tensor | None:
    return next((t for t in tensors(output) if t.is_floating_point() and t.dim() > 1), None)


def plain_loss(output) -> Tensor | None:
    """The one floating scalar; None if there are several, or none."""
    found = [t for t in tensors(output) if t.is_floating_point() and t.numel() == 1]
    return found[0] if len(found) == 1 else None


def plain_settings(module: nn.Module) -> dict:
    codebook = plain_codebook(module)
    known = {"codebook_size": len(codebook), "dim": codebook.shape[1]}
    tables = [SETTINGS, SETTINGS_WITH_COUNTS] if plain_counts(module) is not None else [SETTINGS]
    for table in tables:
        for setting, names in table.items():
            value = _said(module, names, MOST.get(setting, math.inf))
            if value is not None:
                known.setdefault(setting, value)
    if known.get("reset_interval", 1.0) >= 1:
        known |= {k: int(v) for k, v in known.items() if k == "reset_interval"}
    else:
        del known["reset_interval"]
    known |= {kind: 1 for kind, called in KINDS.items() if called.search(type(module).__name__)}
    if isinstance(getattr(module, "kmeans_init", None), bool):
        known["kmeans_init"] = module.kmeans_init
    return known


def _said(module: nn.Module, names: tuple[str, ...], most: float) -> float | None:
    """The first number from 0 to ``most`` under one of ``names``."""
    for owner in _owners(module):
        for name in names:
            value = getattr(owner, name, None)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and 0 <= value <= most:  # else the name means another
                return float(value)
    return None


class Layout(NamedTuple):
    """How a layer may take tokens z (N, D)."""

    text: str  #: `form` as Python
    form: Callable[[Tensor], Tensor]
    axis: int  #: of the features


LAYOUTS = (  # a layer that flattens takes the first
    Layout("z[None]", lambda z: z[None], -1),  # (1, N, D)
    Layout("z", lambda z: z, -1),  # (N, D)
    Layout("z.T[None, :, :, None]", lambda z: z.T[None, :, :, None], 1),  # (1, D, N, 1), a picture
    Layout("z[None, :, None]", lambda z: z[None, :, None], -1),  # (1, N, 1, D)
    Layout("z.T[None]", lambda z: z.T[None], 1),  # (1, D, N)
)


def plain_call(module: nn.Module, z: Tensor) -> tuple:
    """Such a layer does not say how it takes tokens z (N, D): each layout is tried on a copy.

    Raises ValueError if it takes none.
    """
    # a token more than features, so that the two cannot be exchanged
    return _fed(module, z, *_layout(module, z[: z.shape[1] + 1]))


def _fed(module: nn.Module, z: Tensor, form, axis: int) -> tuple:
    """Quantized (N, D), indices and loss. Raises ValueError if they are not of that form."""
    shaped = form(z)
    output = module(shaped)
    quantized = plain_quantized(output)
    if quantized is None or quantized.shape != shaped.shape:
        got = "none" if quantized is None else f"one of shape {tuple(quantized.shape)}"
        raise ValueError(f"expected an output of the same shape, got {got}")
    indices = plain_indices(module, output)
    if indices.numel() % len(z):
        got = f"a tensor of shape {tuple(indices.shape)}"
        raise ValueError(f"expected indices for {len(z)} tokens, got {got}")
    return quantized.movedim(axis, -1).reshape(z.shape), indices, plain_loss(output)


@torch.no_grad()
def _layout(module: nn.Module, z: Tensor) -> tuple:
    """The first of `LAYOUTS` in which tokens stay tokens: in reverse, they get the same codes."""
    probe, ran, refused = copied(module).eval(), [], []
    with torch.random.fork_rng(devices=[z.device] if z.is_cuda else []):
        for _, form, axis in LAYOUTS:
            try:
                there, back = (_fed(probe, x, form, axis)[1] for x in (z, z.flip(0)))
            except Exception as error:  # a layer may raise anything on what it does not take
                refused.append(f"fed as {tuple(form(z).shape)}: {error}")
                continue
            if torch.equal(there.reshape(len(z), -1), back.reshape(len(z), -1).flip(0)):
                return form, axis
            ran.append((form, axis))
    if not ran:
        raise ValueError("it takes no layout that was tried; " + "; ".join(refused))
    return ran[0]
