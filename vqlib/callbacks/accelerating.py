"""For loops around Hugging Face's Accelerate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from vqlib.callbacks.following import Following

if TYPE_CHECKING:
    from accelerate import Accelerator


def accelerate(accelerator: Accelerator, model: nn.Module, **options: Any) -> Accelerated:
    """Watches ``model`` while it trains, and logs through ``accelerator``.

    >>> with vqlib.callbacks.accelerate(accelerator, model) as following:  # doctest: +SKIP
    ...     for step, batch in enumerate(loader):
    ...         train(model, batch)
    ...         following.log(step)

    Of several processes the first one logs, and what it has counted itself. After a resume,
    ``following.start(steps_done)`` in place of ``with`` counts on, until ``following.stop()``.

    Args:
        accelerator: the `accelerate.Accelerator`, with its trackers initialised.
        model: before or after ``accelerator.prepare``.
        options: arguments of `Following`: adapters, every, window, on_row, alarms, stop_if,
            columns.

    Raises:
        TypeError: ``accelerator`` is none. TypeError and ValueError as `vqlib.watch` and
            `vqlib.Alarms`.
    """
    return Accelerated(accelerator, model, **options)


class Accelerated(Following):
    """What `accelerate` returns: a `Following` that logs through an Accelerator."""

    def __init__(self, accelerator: Accelerator, model: nn.Module, **options: Any):
        if not callable(getattr(accelerator, "log", None)):
            raise TypeError(
                f"accelerator must be an accelerate.Accelerator, got {type(accelerator).__name__}"
            )
        super().__init__(model, **options)
        self._accelerator = accelerator

    def log(self, step: int | None = None) -> None:
        """Give what is new to ``accelerator.log``, at the ``step`` of your own logs.

        If a rule to stop is met it also calls ``accelerator.set_trigger()``, so that
        ``accelerator.check_trigger()`` becomes True in every process.
        """
        if numbers := self.numbers():
            self._accelerator.log(numbers, step=step)
        if self.should_stop:
            self._accelerator.set_trigger()
