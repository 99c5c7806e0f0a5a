"""Trainings: choose settings, train for real, watch, stop, compare, restore, resume.

The training runs in a thread of its own (`Worker`), so that the notebook stays usable; the browser
draws (`RunView`); every run is kept in a folder (`RunStore`). The buttons and the methods below
take the same path.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from vqlib.playground.controls import Panel
from vqlib.playground.trainings import overviews, runview, settings
from vqlib.playground.trainings.board import Board
from vqlib.playground.trainings.comparison import Comparison
from vqlib.playground.trainings.worker import Worker, gallery_of, pictures_of, use_of
from vqlib.training.config import TrainConfig, steps_of
from vqlib.training.runs import Run
from vqlib.training.store import LONGEST_NAME, RunStore, check_name


class Trainings:
    """Trainings from sliders, and the runs they leave.

    Args:
        folder: where runs are kept; None: $VQLIB_RUNS, else the repository's data/runs.
        base: the settings at first, also of everything that has no slider; None: a small setting
            that trains in seconds.

    Attributes:
        panel: the settings' controls. board: buttons and picture. store: the kept runs.
        widget: the whole, to display.
    """

    def __init__(self, folder: str | Path | None = None, base: TrainConfig | None = None):
        base = base or settings.BASE
        self.base = replace(base, steps=steps_of(base, len(pictures_of(base).train)))
        self.store = RunStore(folder)
        self.comparison = Comparison(self.store, self.base)
        self._unseen = self.base  # gives what has no control
        self._config: TrainConfig | None = None
        self._worker: Worker | None = None
        self._focus = ""  # the run whose histogram and pictures are shown
        self._detail = (None, None)
        self._announced: Worker | None = None
        self._lock = threading.RLock()  # the kernel's thread and the training's both set traits
        self.panel = Panel(settings.controls(self.base), "Settings", self._lock)
        self.panel.widget.layout.flex = "0 0 350px"
        self.board = Board(self.train, self.stop, self._check, self._answer)
        self.widget = widgets.HBox(
            [self.panel.widget, self.board.widget],
            layout={"flex_flow": "row wrap", "grid_gap": "16px"},
        )
        self.widget.add_class("vq-trainings")
        self.panel.observe(lambda names: self._check())
        self._adopt()
        self._refresh()
        self._check()

    # --- what a user does, by button or by name ---

    def set(self, **values) -> None:
        """Move controls as a user would.

        Raises ValueError for an unknown control, a value out of range, or values that do not go
        together.
        """
        self.panel.set(**values)
        self._refuse_complaints()

    def train(self, name: str = "", *, wait: bool = False) -> str:
        """Start a run with the present settings; returns the name under which it is kept.

        Args:
            name: of the run; "": the name field's, or what differs from the default settings. A
                name that is taken gets a number.
            wait: return only when it has ended, see `wait`.

        Raises ValueError for settings that do not go together, RuntimeError while another runs.
        """
        with self._lock:
            self._refuse_complaints()
            self._refuse_while_busy()
            name = self.store.new(name or self.board.name.value.strip() or self._suggestion())
            self._start(name, self._config)
        if wait:
            self.wait()
        return name

    def resume(self, name: str, *, wait: bool = False) -> None:
        """Resume a stopped or interrupted run, bit for bit as if it had never stopped."""
        with self._lock:
            self._refuse_while_busy()
            kept = self.store.find(name)
            if not kept.resumable:
                raise ValueError(
                    f"the run {name!r} is {kept.state}; only a stopped or an "
                    "interrupted one can be resumed"
                )
            self.restore(name)
            self._start(name, None)
        if wait:
            self.wait()

    def stop(self) -> None:
        """End the run under way after its present step, and keep it. Does not wait."""
        with self._lock:
            if self._busy:
                self.board.say("Stopping after this step.")
                self._worker.stop()
                self._buttons()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the training has ended; an interrupt of the kernel stops it.

        Raises TimeoutError after ``timeout`` seconds, and the error that ended the training.
        """
        if self._worker is None:
            return
        try:
            ended = self._worker.join(timeout)
        except KeyboardInterrupt:
            self.stop()
            raise
        if not ended:
            raise TimeoutError(
                f"{self._worker.name!r} is still training: step {self._worker.step} of "
                f"{self._worker.steps}"
            )
        if self._worker.error is not None:
            raise self._worker.error

    def restore(self, name: str) -> None:
        """Put the controls back to a run's settings, and show its histogram and pictures."""
        if self._busy and name == self._worker.name:
            with self._lock:
                self._focus = name
                self._show_frame(self._worker)
            return
        run = self.store.load(name)
        with self._lock:
            trained = run.summary["steps"] > 0
            self._detail = use_of(run), gallery_of(run.model, run.config) if trained else None
            self._focus, self.comparison.ticked[name] = name, True
            self._draw_detail()
            self._refresh()
        self._unseen = replace(run.config, steps=run.config.steps or run.summary["steps"])
        self.panel.set(**settings.values_of(self._unseen))
        self.board.say(self.summary(name))

    def show(self, name: str, shown: bool = True) -> None:
        """Tick a run's curves to be drawn, or not."""
        with self._lock:
            self.comparison.ticked[self.store.find(name).name] = shown
            self._refresh()

    # --- what came of it ---

    def run(self, name: str) -> Run:
        """A kept run; of an interrupted one what its last checkpoint holds."""
        return self.store.load(name)

    def table(self) -> pd.DataFrame:
        """One row a run, oldest first: name, state, steps, settings and results."""
        self._refresh()
        return self.comparison.table()

    def summary(self, name: str = "") -> str:
        """One sentence on a run, "": the last one trained or restored."""
        name = name or self._focus
        if not name:
            return "No run yet: choose settings and press Train."
        return self.comparison.sentence(name)

    def figure(self) -> Figure:
        """What is shown, as a figure: ticked runs' curves, and the last run's use and pictures."""
        with self._lock:
            self._refresh()
            return overviews.overview(self.comparison.drawn(), self._focus, *self._detail)

    def _repr_mimebundle_(self, **keywords):
        return self.widget._repr_mimebundle_(**keywords)

    # --- the settings ---

    def _check(self) -> None:
        """Say beside the controls what is wrong with them; enable Train only if nothing is."""
        with self._lock:
            settings.silence(self.panel)
            self._config, self._wrong = None, None
            try:
                self._config = settings.config_of(self.panel.values, self._unseen)
                settings.explain(self.panel, self._config)
                self.board.name.placeholder = self._suggestion()
                check_name(self.board.name.value or self._suggestion())
            except ValueError as error:
                self._wrong = error
                beside = self.panel.complain_of(error)
                self.board.say("" if beside else str(error), wrong=not beside)
            else:
                if self.board.complains:
                    self.board.say("")
            self._buttons()

    def _refuse_complaints(self) -> None:
        if self._wrong is not None:
            raise self._wrong

    def _refuse_while_busy(self) -> None:
        worker = Worker.current
        if worker is not None and worker.busy:
            raise RuntimeError(
                f"{worker.name!r} is training; stop it, or wait until it has finished"
            )

    def _suggestion(self) -> str:
        words = settings.difference(self._config, self.base).replace("/", "") or "default"
        return words if len(words) <= LONGEST_NAME else words[:LONGEST_NAME].rsplit(",", 1)[0]

    # --- the training and its picture ---

    @property
    def _busy(self) -> bool:
        return self._worker is not None and self._worker.busy

    def _start(self, name: str, config: TrainConfig | None) -> None:
        self._follow(Worker(self.store, name, config))
        self.board.say(f"Training “{name}”.")
        self._worker.start()
        self._buttons()

    def _adopt(self) -> None:
        """A panel made anew, its cell run again, finds the training that is under way."""
        worker = Worker.current
        if worker is not None and worker.busy and worker.store.folder == self.store.folder:
            self._follow(worker)
            self.board.say(f"Training “{worker.name}”.")

    def _follow(self, worker: Worker) -> None:
        self._worker, self._focus = worker, worker.name
        self.comparison.ticked[worker.name] = True
        worker.listen(self._on_news)

    def _on_news(self, worker: Worker) -> None:
        with self._lock:
            if worker.busy:
                if self._announced is not worker:  # only now it is a run in the store
                    self._announced = worker
                    self._refresh()
                self._show_frame(worker)
                return
            if self._focus == worker.name:
                self._show_frame(worker)
            self._refresh()
            self.board.rest()
            if worker.name not in [kept.name for kept in self.comparison.runs]:
                self._focus = ""  # refused before it began
            self._buttons()
            wrong = worker.error is not None
            self.board.say(
                f"{type(worker.error).__name__}: {worker.error}"
                if wrong
                else self.summary(worker.name),
                wrong=wrong,
            )

    def _show_frame(self, worker: Worker) -> None:
        look = self.comparison.look(worker.name)
        self.board.picture.live = runview.line(worker.name, look, worker.curves)
        self.board.advance(worker.step, worker.steps, worker.seconds_left)
        if self._focus == worker.name:
            self._detail = worker.use, worker.gallery
            self._draw_detail()

    def _draw_detail(self) -> None:
        use, gallery = self._detail
        self.board.picture.bars = runview.bars(
            self._focus, use, self.comparison.look(self._focus).color
        )
        self.board.picture.strip = runview.strip(self._focus, gallery)

    def _buttons(self) -> None:
        busy = self._busy
        self.board.train.disabled = busy or self._wrong is not None
        self.board.stop.disabled = not busy or self._worker.stopping

    def _answer(self, do: str, run: str, on: bool | None) -> None:
        """What was clicked in the table."""
        if do == "show":
            self.show(run, bool(on))
        elif do in ("restore", "resume"):
            getattr(self, do)(run)

    def _refresh(self) -> None:
        """Read again what is kept: the table, and the curves of what is ticked."""
        with self._lock:
            self.comparison.refresh()
            under_way = self._worker.name if self._busy else ""
            drawn = self.comparison.drawn(without=under_way)
            self.board.picture.rows = self.comparison.rows(self._focus)
            self.board.picture.lines = [runview.line(name, *shown) for name, shown in drawn.items()]
