"""One watched layer: its forwards are read through an adapter and handed on, code by code."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from vqlib.quantization.distributed import many, process
from vqlib.quantization.quantizer import NormEMAQuantizer
from vqlib.watching import libraries
from vqlib.watching.adapters import VECTOR_QUANTIZE, Adapter
from vqlib.watching.balance import Balance, Norms
from vqlib.watching.columns import SAMPLED_OUTPUTS, looks, samples
from vqlib.watching.reading import Reader, WrongAdapter
from vqlib.watching.track import HITS, Seen, Track, hits, shrunk, turned

REDRAWN = 25  # steps for which the same places of a batch are sampled


class Layer:
    """A module whose forwards are followed, with one `Track` a codebook.

    Resets: ours says what it reset. Elsewhere, where codes follow a moving average, a code
    that turned without a hit was reset, inside the forward or between it and the next; so was
    one with hits that turned while its count, due below ``dead_code_threshold``, became
    ``reset_refill``. Not if several layers or processes move one codebook: there the hits
    of this layer do not explain its movements. Loading a state between steps looks like resets.

    Args:
        name: dotted, in the model. sure: whether the adapter was given or the class is
            known; a guess that turns out wrong is given up with a warning.
        every, window: see `watch`.

    Raises:
        WrongAdapter: the adapter gives no codebook, counts or settings of the kind expected.
    """

    def __init__(self, name, module: nn.Module, adapter: Adapter, sure: bool, every, window):
        self.module, self.sure = module, sure
        self.every, self.step = every, 0
        self.ours = isinstance(module, NormEMAQuantizer)
        self.reader = Reader(adapter, module, name)
        self.settings = {"kind": adapter.name or type(module).__name__} | self.reader.settings
        books, counts, sizes = self.books(), self.counts(), self.reader.sizes
        if not sizes:
            raise self.reader.wrong("settings", "codebook_size, as its codebook is None", None)
        if books:
            self.settings.setdefault("dim", self.reader.dim)
        trained = any(b.requires_grad for b in books)
        self.by_count = trained  # a trained codebook moves everywhere
        told = not trained or self._refill() is not None
        self.observed = self.ours or bool(books and counts and not many() and told)
        self.late = bool(books) and not (self.observed or counts or many() or trained)
        averaged = counts or "decay" in self.settings or libraries.restarts(module)
        if trained and not averaged:
            self.settings["by_gradient"] = 1  # nothing but an optimizer moves its codes
        if not books:
            self.settings["fixed_grid"] = 1
        names = [name] if len(sizes) == 1 else [f"{name}[{i}]" for i in range(len(sizes))]
        self.tracks = [
            Track(
                n,
                k,
                self.settings,
                every=every,
                window=window,
                observed=self.observed,
                counted=bool(counts) and (sure or not trained),  # a tally divides nothing
            )
            for n, k in zip(names, sizes, strict=True)
        ]
        self.given_up = False
        self.process = (0, 1)  # this one's number, and how many trained the layer together
        self.balance: Balance | None = None  # of the last forward, until its backward pass
        self.state: list[Tensor] | None = None  # books and counts when evaluation began
        self.start: list[Tensor] = []  # codebooks when this forward began
        self.start_counts: list[Tensor] = []  # and their counts
        self.left: list[Tensor] = []  # codebooks when the last forward ended
        self.hit: list[Tensor] = []  # codes hit by the last training forward
        self.drawn: tuple = ()  # for which steps, shape and device the places were, and they

    def unseen(self) -> list[str]:
        """Names of the codebooks that no token reached."""
        return [] if self.given_up else [track.name for track in self.tracks if not track.reached]

    def why_empty(self, track: Track) -> str:
        """Why the history of ``track`` has no rows."""
        if self.given_up:
            return "given up, for its output could not be read"
        return "no row is due yet" if track.reached else "nothing seen: no token has reached it"

    # --- hooks ---

    def before(self, args, kwargs) -> None:
        """A forward begins."""
        self.balance = None
        if self.given_up:
            return
        if self.module.training:
            if self.observed and not self.ours:
                self.start = [b.clone() for b in self.books()]
                self.start_counts = [c.clone() for c in self.counts()]
        elif self.state is None:
            books = self.books()
            self.state = [t.clone() for t in (*books, *self.counts())]
            for i, track in enumerate(self.tracks):
                track.begin_val(books[i] if books else None)

    def after(self, args, kwargs, output) -> None:
        """A forward has ended. Raises WrongAdapter if its output cannot be read."""
        if self.given_up:
            return
        indices = None
        try:
            if kwargs.get("topk") is None:  # else they are candidates, not choices
                indices = self.reader.choices(self.module, output, may_lack=self.sure)
        except WrongAdapter as error:
            if self.sure:
                raise
            self.given_up = True
            warnings.warn(f"{error}; not followed any more", stacklevel=2)
            return
        if indices is None:
            self.left = []  # what this forward moved is not known to be a reset
            return
        training = self.module.training
        self.step += training
        if training and many() and self.process == (0, 1):
            self._found_others()
        if training and self.step == 1:
            self._see_start(args, kwargs, output, indices[0])
        came_late = training and self.step == 1 and self._counts_came()
        bins = [hits(i, t.codebook_size) for i, t in zip(indices, self.tracks, strict=True)]
        resets, change = [None] * len(bins), None
        if training:
            self.state = None
            if came_late:  # this step may have begun the codebook, too
                self.left, self.hit = [b.clone() for b in self.books()], [b[HITS] > 0 for b in bins]
            elif self.observed:
                resets = self._resets([b[HITS] for b in bins])
        else:
            change = self._change()
        sampled, shared = [{} for _ in bins], {"change": change}
        if not training or samples(self.step, self.every):
            sampled = self._sampled(args, kwargs, output, indices)
        if not training or self.step % self.every == 0:
            shared["loss"] = self._loss(output)
        if training and looks(self.step, self.every):
            shared["norms"] = self._norms(args, kwargs, output)
        for track, *seen, more in zip(self.tracks, bins, resets, sampled, strict=True):
            track.add(Seen(self.step, training, *seen, **more, **shared))

    def finish(self) -> None:
        """Nothing more will come."""
        self.balance = None
        books, counts = self.books(), self.counts()
        for i, track in enumerate(self.tracks):
            track.finish(books[i] if books else None)
            if counts and self.observed and self.step:
                track.know_dead(counts[i])

    def _found_others(self) -> None:
        """Other processes train the layer, too; they may have come after the watch."""
        self.process = process()
        theirs = self.reader.adapter is VECTOR_QUANTIZE and libraries.vqp_sums(self.module)
        if self.ours or theirs:
            for track in self.tracks:
                track.known["processes"] = self.process[1]

    def _see_start(self, args, kwargs, output, indices: Tensor) -> None:
        """How many codes the first step shrinks, where a count divides them and both are seen."""
        z, quantized = _first_float(args, kwargs), self.reader.optional("quantized", output)
        alone = len(self.tracks) == 1 and self.tracks[0].counted and not many()
        if not alone or z is None or quantized is None or quantized.shape != z.shape:
            return
        axis, dim = tokens_axis(self.module, z, indices, self.reader.dim), self.reader.dim
        if axis is None or z.shape[axis] != dim or indices.numel() * dim != z.numel():
            return
        z, codes = (t.detach().float().movedim(axis, -1).reshape(-1, dim) for t in (z, quantized))
        flat = indices.reshape(-1).long()
        there = (flat >= 0) & (flat < len(self.books()[0]))
        flat, z, codes = flat[there], z[there], codes[there]
        new = self.books()[0].float()
        old = torch.zeros_like(new).index_copy_(0, flat, codes)
        used = torch.bincount(flat, minlength=len(new)) > 0
        if len(flat):
            share = shrunk(old, new, z, flat)[used].float().mean()
            self.tracks[0].known["start_shrunk"] = float(share)

    def _counts_came(self) -> bool:
        """Whether the first forward made the counts; resets are looked for from then on."""
        if not self.late or not self.books() or not self.counts():
            return False
        self.settings = self.reader.settings_of(self.module) | self.settings
        self.observed = True
        for track in self.tracks:
            track.observe(self.settings)
        return True

    # --- what happened in a forward ---

    def _resets(self, bins: list[Tensor]) -> list[Tensor | None]:
        """Codes reset by this training step with hits ``bins`` (K,), a codebook each.

        None if it cannot be told: k-means on the first batch turns everything.
        """
        if self.ours:
            reset = self.module.last_reset
            return [bins[0].new_empty(0) if reset is None else reset.codes.clone()]
        if many():  # what moves a code may be another's hits
            return [None] * len(bins)
        now, hit = self.books(), [b > 0 for b in bins]
        found = []
        for i, book in enumerate(now):
            refilled = self._refilled(i, bins[i])
            reset = turned(self.start[i], book) & (
                refilled if self.by_count else ~hit[i] | refilled
            )
            if self.left and not self.by_count:
                reset |= turned(self.left[i], self.start[i]) & ~self.hit[i]
            found.append(reset)
        self.left, self.hit = [b.clone() for b in now], hit
        return [None] * len(now) if self.step == 1 and self.settings.get("kmeans_init") else found

    def _refilled(self, i: int, bins: Tensor) -> Tensor:
        """(K,) bool: counts of codebook ``i`` that were due below the threshold, and are not."""
        known = self._refill()
        if known is None:
            return torch.zeros_like(bins, dtype=torch.bool)
        threshold, refill, decay = known
        due = self.start_counts[i].lerp(bins.to(self.start_counts[i]), 1 - decay)
        return (due < threshold) & torch.isclose(self.counts()[i], due.new_tensor(refill))

    def _refill(self) -> tuple[float, float, float] | None:
        """(threshold, refill, decay) of the counts in hits; None if one of them is not known."""
        known = [self.settings.get(n) for n in ("dead_code_threshold", "reset_refill", "decay")]
        return None if None in known or self.settings.get("reset_relative") else tuple(known)

    def _change(self) -> Tensor | None:
        """Largest absolute change of codebooks and counts since evaluation began; scalar."""
        books = self.books()
        if self.left:
            self.left = [b.clone() for b in books]
        now = (*books, *self.counts())
        if not now or self.state is None:
            return None
        changes = [
            (a.float() - b.float()).abs().max() for a, b in zip(now, self.state, strict=True)
        ]
        return torch.stack(changes).max()

    def _sampled(self, args, kwargs, output, indices: list[Tensor]) -> list[dict]:
        """Some inputs, and what they became, for `Seen`, a codebook each."""
        z = _first_float(args, kwargs)
        axis = None if z is None else tokens_axis(self.module, z, indices[0], self.reader.dim)
        if axis is None or z.numel() == 0:
            return [{} for _ in indices]
        tokens, (flat, *place) = self._places(z.movedim(axis, -1))
        more = {"inputs": z.movedim(axis, -1)[tuple(place)]}
        quantized = self.reader.optional("quantized", output)
        if (
            quantized is not None
            and quantized.shape == z.shape
            and z.shape[axis] == self.reader.dim
        ):
            more["codes"] = quantized.movedim(axis, -1)[tuple(place)]
        return [more | {"kept": i.reshape(tokens, -1)[flat, 0] >= 0} for i in indices]

    def _places(self, z: Tensor) -> tuple[int, Tensor]:
        """Of ``z`` (..., D): how many vectors, and some of their places, flat and by dimension.

        They are drawn anew every `REDRAWN` steps: the batches change by themselves.
        """
        lead, drawn = z.shape[:-1], self.step // REDRAWN
        if self.drawn[:3] != (drawn, lead, z.device):
            tokens = lead.numel()
            chosen = np.random.default_rng(drawn).choice(
                tokens, min(tokens, SAMPLED_OUTPUTS), replace=False
            )
            places = torch.from_numpy(np.stack([chosen, *np.unravel_index(chosen, lead)]))
            self.drawn = (drawn, lead, z.device, places.to(z.device))
        return lead.numel(), self.drawn[3]

    def _norms(self, args, kwargs, output) -> Norms | None:
        """Of the gradients that the backward pass of this forward will bring, if they are seen."""
        z = _first_float(args, kwargs)
        parts = self.reader.optional("quantized", output), self.reader.optional("loss", output)
        self.balance = Balance.of(z, *parts)
        return self.balance and self.balance.norms

    def _loss(self, output) -> Tensor | None:
        loss = self.reader.optional("loss", output)
        known = loss is not None and loss.is_floating_point() and loss.numel() == 1
        return loss.detach().reshape(()).clone() if known else None

    def books(self) -> list[Tensor]:
        """(K, D) each, as the layer holds them."""
        return self.reader.books(self.module)

    def counts(self) -> list[Tensor]:
        """(K,) each, as the layer holds them."""
        return self.reader.counts(self.module)


def _first_float(args, kwargs) -> Tensor | None:
    """A layer's input: the first tensor of floats that it was called with."""
    return next((t for t in libraries.tensors([args, kwargs]) if t.is_floating_point()), None)


def forget_shared(layers: list[Layer]) -> None:
    """Look for no resets in a codebook that several layers move."""
    layers = [layer for layer in layers if layer.observed or layer.late]
    places = [{b.untyped_storage().data_ptr() for b in layer.books()} for layer in layers]
    for layer, place in zip(layers, places, strict=True):
        if sum(bool(place & other) for other in places) > 1:
            layer.observed = layer.late = False
            for track in layer.tracks:
                track.observed = False


def tokens_axis(module: nn.Module, z: Tensor, indices: Tensor, dim: int | None) -> int | None:
    """Along which dimension of its input ``z`` a layer's vectors lie; None if unclear.

    ``indices`` have the shape of z without that dimension, or are all of them in a row; with
    several heads a last dimension more. ``dim``: D of the codes, which decides between two.
    """
    axes = []
    for axis in range(1, z.dim()):
        lead = z.movedim(axis, -1).shape[:-1]
        rows = indices.dim() == 1 or indices.shape[1:].numel() == 1
        same = lead in (indices.shape, indices.shape[:-1])
        if same or (rows and lead.numel() == indices.numel()):
            axes.append(axis)
    if len(axes) > 1:
        axes = [axis for axis in axes if z.shape[axis] == dim] or axes
    first = libraries.channels_first(module)
    if len(axes) > 1 and first is not None:
        axes = [min(axes) if first else max(axes)]
    return axes[0] if len(axes) == 1 else None
