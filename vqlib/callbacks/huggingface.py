"""A callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import TrainerCallback

from vqlib.callbacks.following import Following

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments


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

    def __init__(self, trainer: Trainer | None = None, **options: Any):
        if not callable(getattr(trainer, "log", None)) or not hasattr(trainer, "add_callback"):
            raise TypeError(
                "HFCallback needs the Trainer itself, to log through it: "
                "trainer.add_callback(vqlib.callbacks.HFCallback(trainer)); "
                f"got {type(trainer).__name__}"
            )
        self._trainer: Any = trainer
        self._options = options
        self.following: Following | None = None
        self._running: Following | None = None  # the same, while the training lasts
        self._logging = False
        self._seen = 0  # the optimizer's steps at the last look

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **more: Any,
    ) -> None:
        self.close()
        wrapped = self._trainer.model_wrapped
        if isinstance(wrapped, nn.DataParallel):  # which a watch refuses
            model = wrapped
        self.following = Following(model, **self._options)
        self._seen = state.global_step
        self._running = self.following.start(state.global_step * args.gradient_accumulation_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        before, self._seen = self._seen, state.global_step
        if self._running and self._running.all_should_stop(state.global_step, before):
            control.should_training_stop = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        if not self._running or self._logging:
            return
        self._logging = True  # what follows comes here again
        try:
            if numbers := self._running.numbers():
                self._trainer.log(numbers)
        finally:
            self._logging = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        if self._running:
            ended, self._running = self._running, None
            ended.stop()

    def close(self) -> None:
        """Stop the watch, if a training has left it running."""
        if self._running:
            left, self._running = self._running, None
            left.watch.stop()

    def __enter__(self) -> HFCallback:
        self._trainer.add_callback(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._trainer.remove_callback(self)
        self.close()
