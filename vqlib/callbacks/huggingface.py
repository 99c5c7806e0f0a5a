"""A callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import TrainerCallback

from vqlib.callbacks.following import Following


class HFCallback(TrainerCallback):
    """Watches the quantizers of a Trainer's model, and writes to what the Trainer reports to.

    >>> trainer = Trainer(model, args, train_dataset=data)  # doctest: +SKIP
    >>> trainer.add_callback(vqlib.callbacks.HFCallback(trainer))  # doctest: +SKIP

    Whenever the Trainer logs, in training or after an evaluation, so does it, through
    ``trainer.log``: to all of ``report_to``, and to ``trainer_state.json``. (A Trainer calls
    its reporters before the callbacks given to it, so only the Trainer can reach them.) The
    names are those of `Following.numbers`. If a rule to stop is met, it sets
    ``control.should_training_stop``. A resumed training counts on from the checkpoint's
    ``global_step`` times the steps of gradient accumulation.

    The Trainer tells no callback of an exception. After one, the watch stays on the model until
    ``close()`` or the next ``train()``; ``with HFCallback(trainer): trainer.train()`` adds the
    callback, and closes it in any case.

    Of several processes the first one reports, and what it has counted itself.

    Args:
        trainer: to whose callbacks it is added.
        options: arguments of `Following`: adapters, every, window, on_row, alarms, stop_if,
            columns.

    Attributes:
        following: the `Following` of the last training, with ``watch`` and ``alarms``; None
            before.

    Raises:
        TypeError: ``trainer`` is no Trainer. When training starts, TypeError and ValueError as
            `vqlib.watch` and `vqlib.Alarms`.
    """

    def __init__(self, trainer=None, **options: Any):
        if not callable(getattr(trainer, "log", None)) or not hasattr(trainer, "add_callback"):
            raise TypeError(
                "HFCallback needs the Trainer itself, to log through it: "
                "trainer.add_callback(vqlib.callbacks.HFCallback(trainer)); "
                f"got {type(trainer).__name__}"
            )
        self._trainer, self._options = trainer, options
        self.following: Following | None = None
        self._running = self._logging = False
        self._seen = 0  # the optimizer's steps at the last look

    def on_train_begin(self, args, state, control, model=None, **more) -> None:
        self.close()
        wrapped = self._trainer.model_wrapped
        if isinstance(wrapped, nn.DataParallel):  # which a watch refuses
            model = wrapped
        self.following = Following(model, **self._options)
        self._seen = state.global_step
        self.following.start(state.global_step * args.gradient_accumulation_steps)
        self._running = True

    def on_step_end(self, args, state, control, **more):
        before, self._seen = self._seen, state.global_step
        if self._running and self.following.all_should_stop(state.global_step, before):
            control.should_training_stop = True
        return control

    def on_log(self, args, state, control, **more) -> None:
        if not self._running or self._logging:
            return
        self._logging = True  # what follows comes here again
        try:
            if numbers := self.following.numbers():
                self._trainer.log(numbers)
        finally:
            self._logging = False

    def on_train_end(self, args, state, control, **more) -> None:
        if self._running:
            self._running = False
            self.following.stop()

    def close(self) -> None:
        """Stop the watch, if a training has left it running."""
        if self._running:
            self._running = False
            self.following.watch.stop()

    def __enter__(self) -> HFCallback:
        self._trainer.add_callback(self)
        return self

    def __exit__(self, *error) -> None:
        self._trainer.remove_callback(self)
        self.close()
