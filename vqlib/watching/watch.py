"""Follow the quantizer layers of any model through a training, without changing it."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import pandas as pd
import torch
from torch import nn

from vqlib.quantization.compiling import uncompiled
from vqlib.quantization.ranges import whole
from vqlib.watching import libraries, suggest
from vqlib.watching.adapters import GUESSED, Adapter, adapter_for
from vqlib.watching.columns import COLUMNS
from vqlib.watching.layer import Layer, forget_shared
from vqlib.watching.rows import Listener, told
from vqlib.watching.track import Track

WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module")
MANY = 10  # layers that an error names
ALL_UNSEEN = (
    ": no token reached them. Is this the model that was trained? A model that was copied, or "
    "a function compiled before the watch began, is not followed"
)
SOME_UNSEEN = (
    ", while others were followed: no token reached them. (A call of layer.forward(z) in place "
    "of layer(z) is not seen.)"
)


def watch(
    model: nn.Module,
    *,
    adapters: Mapping[type[nn.Module], Adapter] | None = None,
    every: int = 1,
    window: int = 1,
    on_row: Callable[[dict], None] | None = None,
) -> Watch:
    """Follow the quantizer layers of ``model`` while it trains.

    >>> with vqlib.watch(model) as w:  # doctest: +SKIP
    ...     train(model)
    >>> vqlib.diagnose(w)  # doctest: +SKIP

    Losses, weights and random numbers are the same to the bit with it and without. (A
    compiled model is compiled anew, with a break in its graph at each layer.) See `Watch`
    for what it holds, and `vqlib.watching.adapters.adapter_for` for the layers that are recognised.

    A *step* is one forward of the layer in training mode, with gradients or without; with
    gradient accumulation that is one micro-batch. All forwards in evaluation mode between
    two steps make one row of split "val". Calls that choose no codes, and the second forward of
    activation checkpointing, are left out.

    Of several processes each watches by itself: its rows count the tokens of its own batches, and
    ``str(watch)`` and a diagnosis say so. (Other processes' tokens may use other codes, so use
    over all of them is at least what the rows show.) Only ``resets`` of our own quantizer are
    those of all, for it resets alike in every process; of other layers they are not known there.
    A threshold is compared with the tokens of all processes if the layer is known to sum its
    hits over them: `NormEMAQuantizer` and vector-quantize-pytorch's.

    Args:
        model: or one wrapped for several processes, or compiled.
        adapters: for layers that are not recognised; they also overrule what is.
        every: training steps between rows; costly columns are measured in those alone.
        window: training steps over which a row's usage is counted.
        on_row: called with each finished row, a dict of ``layer``, ``step``, ``split`` and
            those columns of `histories` that are known: no NaN, ready for JSON. It is called
            in the training's thread between two forwards, without gradients. Rows wait on
            the device and come together, up to 32 forwards late; the last come when the watch
            stops. If it raises, that is a warning, once, and training goes on.

    Raises:
        TypeError: ``model`` is no module, ``adapters`` no classes with an `Adapter` each, or
            ``on_row`` not callable.
        ValueError: no quantizer found, or one that cannot be followed; numbers below 1.
        WrongAdapter: an adapter fails, or what it gives cannot be right. It is a TypeError and
            a ValueError. Later steps raise it too.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    every, window = whole("every", every), whole("window", window)
    if not isinstance(adapters, Mapping | None):
        raise TypeError(
            "adapters must be a dict {class: vqlib.Adapter} or None, "
            f"got {type(adapters).__name__}"
        )
    for kind, adapter in (adapters or {}).items():
        if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
            raise TypeError(f"adapters: expected a class of modules as key, got {kind!r}")
        if not isinstance(adapter, Adapter):
            raise TypeError(
                f"adapters: expected a vqlib.Adapter for {kind.__name__}, got {adapter!r}"
            )
    compiled = _refuse(model)
    layers = [
        Layer(name, module, adapter, sure, every, window)
        for name, module, adapter, sure in _found(model, dict(adapters or {}))
    ]
    forget_shared(layers)
    watching = Watch(model, layers, compiled)
    if on_row is not None:
        watching.tell_rows(on_row, "on_row")
    return watching


class Watch:
    """What `watch` returns: a context manager, readable at any time and from any thread.

    Attributes:
        layers: names of the layers followed, one a codebook: ``quantizer``, or if a
            layer holds several ``quantizer[0]``, ``quantizer[1]``.
    """

    def __init__(self, model: nn.Module, layers: list[Layer], compiled: bool):
        self._model, self._layers, self._compiled = model, layers, compiled
        self._lock = threading.RLock()
        self._handles: list = []
        self._of_rows: list[Listener] = []
        self._of_steps: list[Listener] = []
        self._told_rows = dict.fromkeys(self.layers, 0)  # how many
        self._told_step = 0
        self._telling = False

    def start(self, steps_done: int | None = None) -> Watch:
        """Begin to follow; what ``with`` does at its beginning.

        Args:
            steps_done: count on from there, as in a training that is resumed.
        """
        if self._handles:
            raise RuntimeError("this watch is running already")
        if steps_done is not None:
            for layer in self._layers:
                layer.step = steps_done
            self._told_step = steps_done
        if self._compiled:  # code compiled before would never see the hooks
            torch.compiler.reset()
        for layer in self._layers:
            before = Hook(layer, self._lock, "before", first=self._tell)
            after = Hook(layer, self._lock, "after")
            self._handles += [
                layer.module.register_forward_pre_hook(before, with_kwargs=True),
                layer.module.register_forward_hook(after, with_kwargs=True),
            ]
        return self

    def stop(self) -> None:
        """Follow no longer; what ``with`` does at its end."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        with self._lock:
            for layer in self._layers:
                layer.finish()
        self._tell(self.steps)

    def __enter__(self) -> Watch:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except Exception:
            if kind is None:  # else the error that ended the training is the one to show
                raise
        unseen = [name for layer in self._layers for name in layer.unseen()]
        if kind is None and unseen:
            why = ALL_UNSEEN if len(unseen) == len(self.layers) else SOME_UNSEEN
            text = f"nothing was seen of the layers {', '.join(unseen)}{why}"
            warnings.warn(text, stacklevel=2)

    # --- what others are told while it runs ---

    def tell_rows(self, call: Callable[[dict], None], name: str = "row listener") -> None:
        """Call ``call`` with each row that is finished from now on; see ``on_row`` of `watch`."""
        self._of_rows.append(Listener(call, name))

    def tell_steps(self, call: Callable[[int], None], name: str = "step listener") -> None:
        """Call ``call`` with the number of steps done, between a training step and the next.

        It is called as ``on_row`` of `watch` is, but for every step, in time.
        """
        self._of_steps.append(Listener(call, name))

    def catch_up(self) -> None:
        """Fetch what waits on the device, and tell the rows that this finishes."""
        with self._lock:
            for track in self._tracks:
                track.fetch()
        self._tell_rows()

    def under_way(self) -> list[dict]:
        """The rows, as ``on_row`` gets them, of the evaluation that no step has ended yet."""
        self.catch_up()
        with self._lock:
            return [told(t.name, row) for t in self._tracks for row in t.under_way()]

    @property
    def steps(self) -> int:
        """Training steps done: of the layer that was reached most often."""
        return max(layer.step for layer in self._layers)

    @torch.no_grad()
    def _tell(self, step: int) -> None:
        """Tell what is finished, once ``step`` steps are done."""
        if self._telling or not (self._of_rows or self._of_steps):
            return
        self._telling = True  # who is told may call the model, and so come here again
        try:
            self._tell_rows()
            if step == self.steps and step > self._told_step:
                self._told_step = step
                for listener in self._of_steps:
                    listener(step)
        finally:
            self._telling = False

    @torch.no_grad()
    def _tell_rows(self) -> None:
        if not self._of_rows:
            return
        for track in self._tracks:
            while self._told_rows[track.name] < len(track.rows):
                row = track.rows[self._told_rows[track.name]]
                self._told_rows[track.name] += 1
                for listener in self._of_rows:
                    listener(told(track.name, row))

    @property
    def counted(self) -> str:
        """Whose tokens the rows count; "" if one process trains by itself."""
        number, many = max((layer.process for layer in self._layers), key=lambda p: p[1])
        return f"tokens and hits of process {number} of {many} alone" if many > 1 else ""

    @property
    def _tracks(self) -> list[Track]:
        return [track for layer in self._layers for track in layer.tracks]

    @property
    def layers(self) -> list[str]:
        return [track.name for track in self._tracks]

    @property
    def histories(self) -> dict[str, pd.DataFrame]:
        """Of each layer by name: the columns of `vqlib.history.COLUMNS`, NaN if unknown.

        No rows if no token has reached the layer; ``str(watch)`` says which these are.
        ``duplicates``, ``longest_code`` and ``code_rank`` stand on the last row too, whatever its
        split; ``longest_code`` only if the layer keeps counts, as a moving average does.
        ``encoder_similarity``, ``encoder_std`` and ``cosine_error`` come from 100 random inputs
        of the layer, in each row of the first 100 steps and then every 5 steps; so does
        ``encoder_rank``, now and then. As often as that, ``commit_gradient_ratio`` is measured
        in the backward pass that follows. It stays NaN if the layer's input has no gradient, its
        loss is no scalar that enters the total, another forward of the layer comes before the
        backward pass, or between input and output there is compiled code, activation
        checkpointing, a hook or a Python function of autograd.
        """
        with self._lock:
            tables = {track.name: track.table() for track in self._tracks}
        return {name: pd.DataFrame(rows, columns=list(COLUMNS)) for name, rows in tables.items()}

    @property
    def history(self) -> pd.DataFrame:
        """All of `histories` in one table, the layer's name in the first column ``layer``."""
        tables = []
        for name, table in self.histories.items():
            table.insert(0, "layer", name)
            tables.append(table)
        filled = [table for table in tables if len(table)]
        return pd.concat(filled, ignore_index=True) if filled else tables[0]

    @property
    def settings(self) -> dict[str, dict]:
        """Of each layer by name: what is known of it, under the names of `TrainConfig`,
        with the median of its ``tokens_per_step`` if it was trained."""
        with self._lock:
            return {track.name: track.settings() for track in self._tracks}

    def __str__(self) -> str:
        whose = f" ({self.counted})" if self.counted else ""
        lines = [f"watching {len(self.layers)} codebooks of {type(self._model).__name__}{whose}"]
        tables = self.histories
        for layer in self._layers:
            for track in layer.tracks:
                table = tables[track.name]
                said = layer.why_empty(track) if table.empty else _last_rows(table)
                lines.append(f"  {track.name}: {said}")
        return "\n".join(lines)


def _last_rows(table: pd.DataFrame) -> str:
    parts = [f"step {table['step'].iloc[-1]}"]
    for split, rows in table.groupby("split"):
        last = rows.iloc[-1]
        parts.append(
            f"{split} utilization {last['utilization']:.1%} (perplexity {last['perplexity']:.1f})"
        )
    return ", ".join(parts)


class Hook:
    """A forward hook that stays with its module: a copy of the module has one that does nothing.

    ``first`` is called with the layer's steps done, before the lock is taken: who is told may
    wait for another thread that reads the watch.
    """

    def __init__(
        self, layer: Layer, lock: Any, which: str, first: Callable[[int], None] | None = None
    ):
        self.layer, self.lock, self.first = layer, lock, first
        self.act = getattr(layer, which)

    @uncompiled
    def __call__(self, module: nn.Module, *seen: Any) -> None:
        # in a backward pass it is activation checkpointing that runs the layer again
        if module is not self.layer.module or torch._C._current_graph_task_id() != -1:
            return
        if self.first is not None:
            self.first(self.layer.step)
        with self.lock, torch.no_grad():
            self.act(*seen)

    def __deepcopy__(self, memo: dict) -> Hook:
        return self

    def __reduce__(self):
        return _unhooked, ()


def _unhooked():
    return _ignore


def _ignore(*seen: Any) -> None:
    return None


def _refuse(model: nn.Module) -> bool:
    """Refuse what cannot be followed, before training; whether anything in it is compiled."""
    compiled = False
    for module in model.modules():
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise ValueError(
                "nn.DataParallel runs a copy of the model on each of "
                f"{len(module.device_ids)} devices, and no copy lives on after its step: use "
                "DistributedDataParallel, or one device"
            )
        context = getattr(module, "dynamo_ctx", None)
        in_place = getattr(module, "_compiled_call_impl", None)
        if in_place is not None:
            context = inspect.getclosurevars(in_place).nonlocals.get("self")
        if getattr(context, "fullgraph", False):
            raise ValueError(
                "the model is compiled with fullgraph=True, and a watch breaks the graph at each "
                "quantizer: compile it without fullgraph, or watch it before it is compiled"
            )
        compiled |= context is not None
    return compiled


def _found(model: nn.Module, given: dict) -> list[tuple[str, nn.Module, Adapter, bool]]:
    """(name, layer, adapter, whether it is sure) of each quantizer; none inside another."""
    known = {}
    for name, module in model.named_modules():
        own = next((a for kind, a in given.items() if isinstance(module, kind)), None)
        adapter = own or adapter_for(module)
        if adapter is not None:
            known[name] = (module, adapter, own is not None or adapter not in GUESSED)
    found: dict[str, tuple] = {}
    for name, (module, adapter, sure) in known.items():
        inside = any(_holds(outer, name) and known[outer][2] for outer in known)
        around = not sure and any(_holds(name, inner) for inner in known)
        if not (inside or around):
            found[name] = (module, adapter, sure)
    if not found:
        raise ValueError(_how_to(model))
    names = _unlike([_short(name, model) for name in found], list(found))
    return [
        (name or type(layer[0]).__name__, *layer)
        for name, layer in zip(names, found.values(), strict=True)
    ]


def _how_to(model: nn.Module) -> str:
    """What to do if no layer is recognised: an adapter for the likeliest one, written out."""
    near = {
        f"{name or 'the model'} ({type(module).__name__})": module
        for name, module in model.named_modules()
        if libraries.looks_near(module) or suggest.looks_held(module)
    }
    likely = max(near.values(), key=suggest.likeliness, default=None)
    kind, how = "MyVQ", suggest.USUAL
    if likely is not None:
        kind, how = type(likely).__name__, suggest.adapter_text(likely)
    seen = f"these look near: {', '.join(list(near)[:MANY])}" if near else "none looks like one"
    return (
        f"no quantizer layer that is recognised in {type(model).__name__}; {seen}. Say how it is "
        f"read: vqlib.watch(model, adapters={{{kind}: {how}}})"
    )


def _unlike(short: list[str], whole: list[str]) -> list[str]:
    """The ``short`` names, but the ``whole`` ones if two are alike."""
    times = Counter(short)
    return [s if times[s] == 1 else w for s, w in zip(short, whole, strict=True)]


def _holds(outer: str, inner: str) -> bool:
    return inner != outer and (outer == "" or inner.startswith(outer + "."))


def _short(name: str, model: nn.Module) -> str:
    """A dotted name without the wrappers' parts."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    wrapped = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    return ".".join(parts[1:] if wrapped else parts)
