"""A callback for PyTorch Lightning, of ``lightning`` or ``pytorch_lightning``."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from vqlib.callbacks.following import Following


def _theirs() -> str:
    """The package whose trainer is meant: what is imported already, else what is there."""
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        return "pytorch_lightning"
    if importlib.util.find_spec("lightning") or not importlib.util.find_spec("pytorch_lightning"):
        return "lightning"
    return "pytorch_lightning"


# a trainer takes callbacks of either package: it asks for their methods, not for their class
if TYPE_CHECKING or _theirs() == "lightning":
    from lightning.pytorch import Callback
else:
    from pytorch_lightning import Callback


class LightningCallback(Callback):
    """Watches the quantizers of a LightningModule, and writes to the trainer's loggers.

    >>> trainer = Trainer(callbacks=[vqlib.callbacks.LightningCallback()])  # doctest: +SKIP

    Training's numbers go to ``trainer.loggers`` every ``log_every_n_steps``, at
    ``trainer.global_step``; evaluation's are logged as the module's own, so a ModelCheckpoint can
    monitor ``vqlib/quantizer/val_utilization``. The names are those of `Following.numbers`. If a
    rule to stop is met, ``trainer.should_stop`` is set. A checkpoint holds the steps counted, and
    a resumed training counts on. The batches of the sanity check are not followed.

    Of several processes the first one logs, and what it has counted itself.

    Args:
        options: arguments of `Following`: adapters, every, window, on_row, alarms, stop_if,
            columns.

    Attributes:
        following: the `Following` of the last fit, with ``watch`` and ``alarms``; None before.

    Raises:
        TypeError, ValueError: when fit starts, as `vqlib.watch` and `vqlib.Alarms`.
    """

    def __init__(self, **options: Any):
        self._options = options
        self.following: Following | None = None
        self._steps = self._seen = 0  # forwards done, and the optimizer's steps at the last look
        self._running: Following | None = None  # the same, while the fit lasts

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.following = Following(pl_module, **self._options)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._seen = trainer.global_step
        if self.following is not None:
            self._running = self.following.start(self._steps if trainer.global_step else 0)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, before, often = trainer.global_step, self._seen, trainer.log_every_n_steps
        if step == before:
            return  # gradients are being accumulated
        self._seen = step
        if often and step // often != before // often:
            self._log(trainer)
        if self._running and self._running.all_should_stop(step, before):
            trainer.should_stop = True

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._running:
            pl_module.log_dict(self._running.numbers(), on_step=False, on_epoch=True)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._log(trainer)
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._end(type(exception), exception, exception.__traceback__)

    def state_dict(self) -> dict:
        return {"steps": self._running.watch.steps if self._running else self._steps}

    def load_state_dict(self, state_dict: dict) -> None:
        self._steps = state_dict["steps"]

    def _log(self, trainer: Any) -> None:
        numbers = self._running.numbers() if self._running else {}
        for logger in trainer.loggers if numbers else ():
            logger.log_metrics(numbers, step=trainer.global_step)

    def _end(self, *error: Any) -> None:
        if self._running:
            ended, self._running = self._running, None
            self._steps = ended.watch.steps
            ended.stop(*error)
