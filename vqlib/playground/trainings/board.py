"""Board: name, buttons, progress, message and picture of the trainings. It only shows."""

from __future__ import annotations

import html
from collections.abc import Callable

import ipywidgets as widgets

from vqlib.playground.trainings.runview import RunView

_SPREAD = {"flex_flow": "row wrap", "align_items": "center"}


class Board:
    """What stands beside the settings.

    Args:
        train, stop: called when the button is pressed. renamed: called when the name changes.
        answer: called with what is asked for in the picture, see `RunView`.

    Attributes:
        name: the field. picture: a `RunView`. widget: the whole.
    """

    def __init__(
        self,
        train: Callable[[], None],
        stop: Callable[[], None],
        renamed: Callable[[], None],
        answer: Callable[[str, str, bool | None], None],
    ):
        self.name = widgets.Text(layout={"width": "230px"})
        self.name.tooltip = (
            "Name of the run. If empty, it is named after what differs from the default settings."
        )
        self.train = widgets.Button(description="Train", icon="play", button_style="primary")
        self.train.tooltip = "Train with these settings"
        self.stop = widgets.Button(description="Stop", icon="stop", disabled=True)
        self.stop.tooltip = "Stop after the present step; the run is kept"
        self._progress, self._message = widgets.HTML(), widgets.HTML()
        self.picture = RunView(lambda *asked: self._aloud(answer, *asked))
        parts = {
            "name": self.name,
            "train": self.train,
            "stop": self.stop,
            "progress": self._progress,
            "message": self._message,
            "runs": self.picture,
        }
        for css, part in parts.items():
            part.add_class(f"vq-{css}")
        bar = widgets.HBox([self.name, self.train, self.stop, self._progress], layout=_SPREAD)
        self.widget = widgets.VBox([bar, self._message, self.picture], layout={"flex": "1 1 560px"})
        self.train.on_click(lambda _: self._aloud(train))
        self.stop.on_click(lambda _: self._aloud(stop))
        self.name.observe(lambda _: renamed(), "value")

    def say(self, text: str, *, wrong: bool = False) -> None:
        """A sentence above the picture, read out by screen readers."""
        css = ' class="vq-error"' if wrong else ""
        self._message.value = f'<div role="status"{css}>{html.escape(text)}</div>'

    @property
    def complains(self) -> bool:
        """Whether what was said last is an error."""
        return "vq-error" in self._message.value

    def advance(self, step: int, steps: int, seconds_left: float | None) -> None:
        """The progress bar."""
        text = f"step {step} of {steps}"
        text += f", {seconds_left:.0f} s left" if seconds_left is not None else ""
        self._progress.value = (
            f'<progress max="{max(steps, 1)}" value="{step}" aria-label="training steps done">'
            f"</progress> <span>{text}</span>"
        )

    def rest(self) -> None:
        """No training is under way: no progress to show, no curve that still grows."""
        self._progress.value, self.picture.live = "", {}

    def _aloud(self, act: Callable, *arguments) -> None:
        """Do what a button asks. A browser does not show an exception, so it is also said here."""
        try:
            act(*arguments)
        except Exception as error:
            self.say(f"{type(error).__name__}: {error}", wrong=True)
            raise
