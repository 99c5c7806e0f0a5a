"""A watch and its alarms around one training, and their numbers under stable names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from vqlib.diagnosis.alarms import Alarms
from vqlib.quantization.distributed import many, sum_over_ranks
from vqlib.watching.adapters import Adapter
from vqlib.watching.columns import COLUMNS
from vqlib.watching.rows import merged
from vqlib.watching.watch import watch

LOGGED = (
    "used_codes",
    "utilization",
    "perplexity",
    "window_tokens",
    "top_code_ratio",
    "resets",
    "encoder_similarity",
)
"""Columns that a logger gets unless others are asked for: enough to diagnose its log by."""


class Following:
    """Watches ``model``, with alarms; what each trainer's callback is made of.

    It works by itself too, in a loop of one's own:

    >>> with vqlib.callbacks.Following(model) as following:  # doctest: +SKIP
    ...     for step, batch in enumerate(loader):
    ...         train(model, batch)
    ...         if step % 50 == 0:
    ...             wandb.log(following.numbers(), step=step)

    A *step* of the rows and the alarms is one forward in training mode: with gradient
    accumulation that is one micro-batch. All numbers are those of this process, see `vqlib.watch`.

    Args:
        adapters, every, window, on_row: of `vqlib.watch`.
        alarms: arguments of `vqlib.Alarms` other than ``stop_if``, for example ``{"every": 50}``;
            False: no alarms.
        stop_if: ids of findings that stop the training if they stay critical, see `vqlib.Alarms`.
        columns: those of `vqlib.history.COLUMNS` that are logged; None: all that are known.

    Attributes:
        watch: the `Watch`. alarms: the `Alarms`, or None.

    Raises:
        TypeError, ValueError: as `vqlib.watch` and `vqlib.Alarms`; ValueError also if ``stop_if``
            is given but no alarms, or if ``columns`` names none.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        adapters: Mapping[type[nn.Module], Adapter] | None = None,
        every: int = 1,
        window: int = 1,
        on_row: Callable[[dict], None] | None = None,
        alarms: Mapping[str, Any] | bool = True,
        stop_if: Iterable[str] = (),
        columns: Iterable[str] | None = LOGGED,
    ):
        self._columns = frozenset(COLUMNS if columns is None else columns) - {"step", "split"}
        if wrong := self._columns - COLUMNS.keys():
            raise ValueError(
                f"columns: no column is called {', '.join(sorted(wrong))}; they are "
                f"{', '.join(COLUMNS)}"
            )
        if alarms is False and stop_if:
            raise ValueError("stop_if needs alarms, got alarms=False")
        if not isinstance(alarms, Mapping | bool):
            raise TypeError(
                'alarms must be a dict of arguments of vqlib.Alarms, such as {"every": 50}, or '
                f"False, got {type(alarms).__name__}"
            )
        self.watch = watch(model, adapters=adapters, every=every, window=window, on_row=on_row)
        self.watch.tell_rows(self._take, "vqlib.callbacks")
        chosen = alarms if isinstance(alarms, Mapping) else {}
        self.alarms = None if alarms is False else Alarms(self.watch, stop_if=stop_if, **chosen)
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._new: dict[tuple[str, str], dict] = {}  # {(layer, split): what is not handed out yet}
        self._val: dict[str, dict] = {}  # {layer: its last row of an evaluation}

    def start(self, steps_done: int | None = None) -> Following:
        """Begin to follow; ``steps_done``: of the training that is resumed."""
        self.watch.start(steps_done)
        return self

    def stop(self, *error: Any) -> None:
        """Follow no longer, and warn of layers that no token reached.

        There is no such warning after an ``error``: its class, the exception, its traceback.
        """
        self.watch.__exit__(*(error or (None, None, None)))

    def __enter__(self) -> Following:
        return self.start()

    def __exit__(self, *error: Any) -> None:
        self.stop(*error)

    @property
    def should_stop(self) -> bool:
        """Whether the rule to stop is met in this process."""
        return self.alarms is not None and self.alarms.should_stop

    def all_should_stop(self, step: int, before: int) -> bool:
        """Whether the rule is met in any process; all of them have to ask.

        They ask one another only if a diagnosis may have lain between the optimizer's steps
        ``before`` and ``step``, for that takes time.
        """
        if self.alarms is None or not self.alarms.stop_if:
            return False
        if not many():
            return self.should_stop
        if step // self.alarms.every == before // self.alarms.every:
            return False
        # the processes' own messages are on their device with NCCL, and anywhere with gloo
        on = self._device if dist.get_backend() == "nccl" else "cpu"
        return bool(sum_over_ranks(torch.tensor(float(self.should_stop), device=on)) > 0)

    def numbers(self) -> dict[str, float]:
        """What is new since the last call, for any logger.

        The names are stable: ``vqlib/<layer>/<column>`` for the training's last row and
        ``vqlib/<layer>/val_<column>`` for the evaluation's, of the ``columns`` that are
        known; resets are summed since the last call.
        ``vqlib/<layer>/critical`` and ``vqlib/<layer>/warnings`` count the findings of the last
        diagnosis. Codebook 2 of a layer ``rvq`` is ``rvq.2``. Empty if there is nothing new.
        """
        self.watch.catch_up()
        for row in self.watch.under_way():
            self._take(row)
        found = {
            f"vqlib/{_plain(layer)}/{'val_' if split == 'val' else ''}{name}": float(value)
            for (layer, split), row in self._new.items()
            for name, value in row.items()
            if name in self._columns
        }
        self._new.clear()
        if found and self.alarms is not None and self.alarms.diagnosis is not None:
            for layer, counts in self.alarms.counts().items():
                found[f"vqlib/{_plain(layer)}/critical"] = float(counts["critical"])
                found[f"vqlib/{_plain(layer)}/warnings"] = float(counts["warning"])
        return found

    def _take(self, row: dict) -> None:
        key = (row["layer"], row["split"])
        if row["split"] == "train":
            self._new[key] = merged(self._new.get(key, {}), row)
        elif row != self._val.get(row["layer"]):  # once while under way, once when finished
            self._new[key] = self._val[row["layer"]] = row


def _plain(layer: str) -> str:
    """A layer's name without brackets, which MLflow does not allow."""
    return layer.replace("[", ".").replace("]", "")
