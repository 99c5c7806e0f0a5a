"""Worker: one training in a thread of its own, and what can be seen of it while it runs.

It knows no widgets. Its listeners are called in its thread, a few times a second.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vqlib.quantization.ranges import SettingsError
from vqlib.training import data
from vqlib.training.config import TrainConfig
from vqlib.training.model import VQVAE
from vqlib.training.runs import Run, TrainingDiverged
from vqlib.training.store import RunStore
from vqlib.training.trainer import Trainer

FRAME_SECONDS = 0.25  # between two calls of the listeners
PICTURE_SECONDS = 1.0  # between two reconstructions, which cost as much as half a step
SHOWN_PICTURES = 6
CURVE_POINTS = 400  # at most twice as many are kept of a curve
MEASURES = ("utilization", "perplexity", "recon_loss")


class Curve:
    """Rows (step, *MEASURES) of one split, thinned out evenly: never many."""

    def __init__(self):
        self._rows: list[tuple] = []
        self._stride, self._seen, self._last = 1, 0, None

    def add(self, row: tuple) -> None:
        if self._seen % self._stride == 0:
            self._rows.append(row)
        self._seen, self._last = self._seen + 1, row
        if len(self._rows) > 2 * CURVE_POINTS:
            self._rows, self._stride = self._rows[::2], 2 * self._stride

    def array(self) -> np.ndarray:
        """(n, 1 + len(MEASURES)) float32, the last row always among them."""
        rows = list(self._rows)
        if rows and rows[-1] is not self._last:
            rows.append(self._last)
        return np.array(rows, dtype=np.float32).reshape(-1, 1 + len(MEASURES))


class Curves(dict):
    """{"train": Curve, "val": Curve}, fed with rows of a history."""

    def __init__(self, rows: Iterable[dict] = ()):
        super().__init__(train=Curve(), val=Curve())
        self.extend(rows)

    def extend(self, rows: Iterable[dict]) -> None:
        for row in rows:
            self[row["split"]].add((row["step"], *(row[name] for name in MEASURES)))


class Use(NamedTuple):
    """How often each code was chosen, and in what."""

    counts: np.ndarray  #: (K,)
    where: str  #: "validation, step 40", say


class Gallery(NamedTuple):
    """Validation pictures before and after the model."""

    originals: np.ndarray  #: (n, H, W, 3) uint8
    reconstructions: np.ndarray  #: (n, H, W, 3) uint8
    errors: list[float]  #: MSE of each


def use_of(run: Run) -> Use | None:
    """The use of codes in a run's last validation; None if there was none."""
    if "val_counts" not in run.trace:
        return None
    step = int(run.trace["val_steps"][-1])
    return Use(run.trace["val_counts"][-1].numpy(), f"validation, step {step}")


def pictures_of(config: TrainConfig) -> data.Pictures:
    """The data of a config. Raises SettingsError if they are signals, which nothing here draws."""
    pictures = data.of(*config.source)
    if pictures.scaling is not None:
        text = (
            f"the playground shows pictures, and {pictures.name} holds signals; use `vqlib train`"
        )
        raise SettingsError(text, "dataset")
    return pictures


@torch.no_grad()
def gallery_of(model: VQVAE, config: TrainConfig) -> Gallery:
    """Pictures of the validation set, evenly chosen, and what ``model`` makes of them."""
    val = pictures_of(config).val
    count = min(SHOWN_PICTURES, len(val))
    pictures = val.batch(range(0, len(val), len(val) // count)[:count])
    rebuilt = model.eval()(pictures.to(next(model.parameters()).device)).reconstruction.cpu()
    errors = (rebuilt - pictures).square().mean(dim=(1, 2, 3)).tolist()
    return Gallery(_pixels(pictures), _pixels(rebuilt), errors)


def _pixels(pictures: Tensor) -> np.ndarray:
    whole = (pictures.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1)
    return whole.expand(*whole.shape[:-1], 3).numpy()


class Worker:
    """A training under way.

    Args:
        store: where the run is kept. name: its folder there, from `RunStore.new`.
        config: its settings; None: resume what is in the folder.

    Attributes:
        step, steps: done and asked for; both 0 until it has begun.
        curves, use, gallery: what to show. run: what came of it. error: what ended it, if any.
    """

    current: Worker | None = None  # of this process, so that a new panel finds it again

    def __init__(self, store: RunStore, name: str, config: TrainConfig | None = None):
        self.store, self.name, self.config = store, name, config
        self.step = self.steps = 0
        self.curves, self.use, self.gallery = Curves(), None, None
        self.run: Run | None = None
        self.error: BaseException | None = None
        self._trainer: Trainer | None = None
        self._rows_taken = 0
        self._stop_asked = False
        # not the thread's own state: of a thread whose join was interrupted Python 3.11 says that
        # it has ended
        self._ended, self._told = threading.Event(), threading.Event()
        self._listeners: list[Callable[[Worker], None]] = []
        self._began: tuple[int, float] | None = None
        self._shown = self._pictured = -float("inf")
        # a daemon: a kernel that shuts down does not wait for the last step
        self._thread = threading.Thread(target=self._work, name=f"train {name}", daemon=True)

    def start(self) -> None:
        Worker.current = self
        self._thread.start()

    def listen(self, listener: Callable[[Worker], None]) -> None:
        """Call ``listener`` with this worker, in its thread, as often as there is news."""
        self._listeners.append(listener)

    def stop(self) -> None:
        """End the training after the step under way, and keep it."""
        self._stop_asked = True
        if self._trainer is not None:
            self._trainer.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended and all have been told; False: not within ``timeout`` seconds."""
        return self._told.wait(timeout)

    @property
    def busy(self) -> bool:
        """Whether it still trains; listeners are called once more after that."""
        return not self._ended.is_set()

    @property
    def stopping(self) -> bool:
        return self._stop_asked

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None while that is not known."""
        if self._began is None or self.step <= self._began[0]:
            return None
        pace = (time.perf_counter() - self._began[1]) / (self.step - self._began[0])
        return pace * (self.steps - self.step)

    def _work(self) -> None:
        self._noting(self._train)
        self._ended.set()
        self._noting(self._close)
        self._noting(self._tell)
        self._told.set()

    def _noting(self, act: Callable[[], None]) -> None:
        """Keeps the first error for whoever waits."""
        try:
            act()
        except BaseException as error:
            self.error = self.error or error

    def _train(self) -> None:
        try:
            self.run = self.store.train(self.name, self.config, [self._after_step])
        except TrainingDiverged as error:
            self.run = error.run
            raise

    def _after_step(self, trainer: Trainer) -> None:
        now = time.perf_counter()
        if self._trainer is None:
            self._trainer, self.steps = trainer, trainer.steps
            self._began = trainer.step, now
        if self._stop_asked:
            trainer.stop()
        self.step = trainer.step
        self._take(trainer.recorder.rows)
        if now - self._shown >= FRAME_SECONDS:
            self._look(trainer, now)
            self._tell()
            self._shown = time.perf_counter()

    def _take(self, rows: list[dict]) -> None:
        self.curves.extend(rows[self._rows_taken :])
        self._rows_taken = len(rows)

    def _look(self, trainer: Trainer, now: float) -> None:
        seen = trainer.trace.last("val_counts")
        if seen is not None:
            step = int(trainer.trace.last("val_steps"))
            self.use = Use(seen.numpy(), f"validation, step {step}")
        else:
            self.use = Use(trainer.recorder.window[-1].numpy(), f"training step {trainer.step}")
        if now - self._pictured >= PICTURE_SECONDS:
            self.gallery = gallery_of(trainer.model, trainer.config)
            self._pictured = time.perf_counter()

    def _close(self) -> None:
        """The last picture is of what is kept."""
        if self.run is not None:
            self._take(self.run.history.to_dict("records"))
            self.step, self.use = self.run.summary["steps"], use_of(self.run)
            self.gallery = gallery_of(self.run.model, self.run.config)

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener(self)


@atexit.register
def _keep_what_runs() -> None:
    """A kernel that is shut down properly keeps its training as a stopped one."""
    worker = Worker.current
    if worker is not None and worker.busy:
        worker._listeners.clear()  # nobody looks any more, and the kernel's channels are closed
        worker.stop()
        worker.join(10)
