"""What an adapter says of a layer, checked: a wrong adapter must not pass for a sound layer."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from vqlib.quantization.ranges import Range, SettingsError, number, switch, whole
from vqlib.watching.adapters import Adapter
from vqlib.watching.libraries import HALVES, INTEGERS, inexact, refuse_lazy

WHOLE = ("codebook_size", "codebooks", "dim", "reset_interval")
YES_OR_NO = ("reset_relative", "kmeans_init")
NUMBERS = {
    "decay": Range(0, 1),
    "beta": Range(0),
    "dead_code_threshold": Range(0),
    "reset_refill": Range(0),
}


class WrongAdapter(TypeError, ValueError):
    """An adapter failed, or gave a thing of the wrong kind or value."""


class Reader:
    """Reads one kind of layer. ``module`` is one of it; its sizes are expected of all.

    Every method raises WrongAdapter. `books`, `counts`, `choices` and `optional` never wait for
    the device; but `choices` does for indices that are read off the output.

    Attributes:
        settings: what is known of the layer, see `Adapter`.
        sizes: K of each codebook; empty if the layer does not say. codes: the first of them.
        dim: D of the first codebook; None if none is held.
    """

    def __init__(self, adapter: Adapter, module: nn.Module, name: str | None = None):
        kind = type(module).__name__
        self.adapter, self.layer = adapter, f"layer {name!r} ({kind})" if name else kind
        self.settings = self._settings(module)
        books, number = self.books(module), self.settings.pop("codebooks", 1)
        size = self.settings.get("codebook_size")
        self.sizes = [len(b) for b in books] or ([size] * number if size else [])
        self.dim = books[0].shape[1] if books else None
        self.codes = self.sizes[0] if self.sizes else None

    def books(self, module: nn.Module) -> list[Tensor]:
        """(K, D) each, as the layer holds them; empty if it holds none."""
        books = self._held("codebook", module)
        for book in books:
            fits = isinstance(book, Tensor) and book.dim() == 2 and book.numel()
            if not fits or not book.is_floating_point():
                expected = "a tensor (K, D) of floats, a list of them, or None"
                raise self.wrong("codebook", expected, book)
        return books

    def counts(self, module: nn.Module) -> list[Tensor]:
        """(K,) each, as the layer holds them; empty if it keeps none."""
        counts = self._held("counts", module)
        for c in counts:
            if not isinstance(c, Tensor) or c.dim() != 1:
                raise self.wrong("counts", "a tensor (K,), a list of them, or None", c)
        if counts and self.sizes and [len(c) for c in counts] != self.sizes:
            raise self.wrong("counts", f"one count a code, lengths {self.sizes}", counts)
        return counts

    def choices(self, module: nn.Module, output: Any, *, may_lack=False) -> list[Tensor] | None:
        """Indices of any shape, a codebook each; None only if they ``may_lack``."""
        said = self._asked("indices", module, output)
        if said is None and may_lack:
            return None
        found = _listed(said)
        for i in found:
            if isinstance(i, Tensor) and i.dtype in HALVES:
                raise self._rounded(i.dtype)
            if not isinstance(i, Tensor) or i.dtype not in INTEGERS:
                raise self.wrong("indices", "integers, or a list of them", i)
        if not found or (self.sizes and len(found) != len(self.sizes)):
            expected = f"{len(self.sizes) or 'some'} tensors, one a codebook"
            raise self.wrong("indices", expected, len(found))
        return found

    def _rounded(self, kind: torch.dtype) -> WrongAdapter:
        return WrongAdapter(
            f"{self.layer}: its adapter's indices must give integers, that no autocast or "
            f".to(dtype) has rounded; got {inexact(kind)}"
        )

    def indices(self, module: nn.Module, output: Any, z: Tensor) -> Tensor:
        """The first codebook's, flat: one a token, or, of parts of tokens, some a token."""
        first, tokens = self.choices(module, output)[0], len(z)
        several = self.dim is not None and self.dim != z.shape[1]
        if first.numel() != tokens and (not several or not first.numel() or first.numel() % tokens):
            raise self.wrong("indices", f"one for each of {tokens} tokens", first)
        return self._within("indices", first, -1)

    def resets(self, module: nn.Module) -> Tensor:
        """(n,) codes of the first codebook; empty if the layer says nothing."""
        said = _listed(self._asked("resets", module))
        if not said or said[0] is None:
            return torch.empty(0, dtype=torch.int64)
        if not isinstance(said[0], Tensor) or said[0].dtype not in INTEGERS:
            raise self.wrong("resets", "integers, the codes that were reset, or None", said[0])
        return self._within("resets", said[0], 0)

    def quantized(self, output: Any, z: Tensor) -> Tensor:
        """(N, D), on the CPU."""
        found = self._asked("quantized", output)
        if not isinstance(found, Tensor) or found.shape != z.shape:
            expected = f"a tensor of the tokens' shape {tuple(z.shape)}"
            raise self.wrong("quantized", expected, found)
        return found.detach().cpu().float()

    def loss(self, output: Any) -> float | None:
        """Of all codebooks together; None if the layer reports none."""
        found = self._asked("loss", output)
        if found is None or isinstance(found, Real):
            return None if found is None else float(found)
        if not isinstance(found, Tensor) or not found.is_floating_point():
            raise self.wrong("loss", "a tensor of floats, a number, or None", found)
        return float(found.detach().sum())

    def optional(self, what: str, output: Any) -> Tensor | None:
        """Its ``quantized`` or ``loss``, for those who can do without: None if it fails."""
        try:
            found = self._asked(what, output)
        except WrongAdapter:
            return None
        return found if isinstance(found, Tensor) else None

    def settings_of(self, module: nn.Module) -> dict:
        """What ``module`` says of itself by now."""
        said = self._settings(module)
        said.pop("codebooks", None)
        return said

    def _settings(self, module: nn.Module) -> dict:
        settings = self._asked("settings", module)
        if not isinstance(settings, Mapping):
            raise self.wrong("settings", "a dict", settings)
        known = {name: value for name, value in settings.items() if value is not None}
        for name, value in known.items():
            try:
                _check(name, value)
            except SettingsError as error:
                raise WrongAdapter(f"{self.layer}: its adapter's settings: {error}") from None
        return known

    def _held(self, what: str, module: nn.Module) -> list[Any]:
        held = _listed(self._asked(what, module))
        for h in held:
            refuse_lazy(module, h)
        return [] if all(h is None for h in held) else held

    def _asked(self, what: str, *given) -> Any:
        try:
            return getattr(self.adapter, what)(*given)
        except Exception as error:  # a caller's function may raise anything
            raise WrongAdapter(
                f"{self.layer}: its adapter's {what} fails: {type(error).__name__}: {error}"
            ) from error

    def _within(self, what: str, codes: Tensor, least: int) -> Tensor:
        codes = codes.detach().to("cpu", torch.int64, copy=True).flatten()
        outside = codes[(codes < least) | (codes >= (self.codes or torch.inf))]
        if len(outside):
            most = "" if self.codes is None else f" to {self.codes - 1}"
            expected = f"codes from {least}{most}"
            raise self.wrong(what, expected, int(outside[0]))
        return codes

    def wrong(self, what: str, expected: str, got) -> WrongAdapter:
        """The error to raise if the adapter's ``what`` gave ``got``."""
        return WrongAdapter(
            f"{self.layer}: its adapter's {what} must give {expected}; got {_shown(got)}"
        )


def _shown(got: Any) -> str:
    if isinstance(got, list | tuple):
        return f"[{', '.join(map(_shown, got))}]"
    return f"{got.dtype} of shape {tuple(got.shape)}" if isinstance(got, Tensor) else repr(got)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _check(name: str, value: Any) -> None:
    """Raises SettingsError if a setting of a known name is not what its name says."""
    if name in YES_OR_NO:
        switch(name, value)
    elif name in WHOLE:
        whole(name, value)
    elif name in NUMBERS:
        number(name, value, NUMBERS[name])
