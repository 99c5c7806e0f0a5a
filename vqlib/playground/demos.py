"""Demo: sliders beside a picture, one sentence in words, and a target to reach."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from vqlib.playground.controls import Control, Panel


class Demo:
    """A demonstration that follows its sliders.

    Args:
        controls: what can be moved.
        compute: called with the controls' values by name; what it returns is the state. A
            ValueError whose ``field`` names a control is shown beside that control.
        draw: state -> Figure; the picture, moving or still.
        say: state -> one sentence in words, with the values and what came of them.
        target: what to try for, in words; "" for none.
        reached: state -> whether the target is reached.

    Attributes:
        state: what ``compute`` last returned. widget: the whole, to display.
    """

    def __init__(
        self,
        controls: Iterable[Control],
        compute: Callable[..., Any],
        draw: Callable[[Any], Figure],
        say: Callable[[Any], str],
        *,
        target: str = "",
        reached: Callable[[Any], bool] = lambda state: False,
    ):
        self.panel = Panel(controls)
        self._compute, self._draw, self._say = compute, draw, say
        self.target, self._reached = target, reached
        self._picture = widgets.Image(format="png", layout={"max_width": "640px"})
        self._words, self._goal, self._error = (widgets.HTML() for _ in range(3))
        self._words.add_class("vq-summary")
        self._goal.add_class("vq-target")
        self._error.add_class("vq-error")
        right = widgets.VBox([self._picture, self._words, self._goal, self._error])
        self.widget = widgets.HBox([self.panel.widget, right], layout={"flex_flow": "row wrap"})
        self.widget.add_class("vq-demo")
        self.panel.observe(self._moved)
        self._moved(set(self.panel.controls))

    def set(self, **values: Any) -> None:
        """Move sliders as a user would.

        Raises ValueError for an unknown slider, a value out of its range, or values that do not
        go together; and any error of the drawing.
        """
        self.panel.set(**values)
        self.panel.refuse_complaints()

    def summary(self) -> str:
        """What the picture shows, in one sentence, and whether the target is reached."""
        return " ".join(filter(None, (self._say(self.state), self._verdict())))

    @property
    def reached(self) -> bool:
        """Whether the target is reached at these slider positions."""
        return bool(self.target) and bool(self._reached(self.state))

    def figure(self) -> Figure:
        """The picture as it stands now, still: for readers without a kernel."""
        return self._draw(self.state)

    def _moved(self, changed: set[str]) -> None:
        self._error.value = ""
        try:
            self._show(changed)
        except Exception as error:
            # a browser shows nothing of an exception in a callback, so it is said here as well
            self._error.value = html.escape(f"{type(error).__name__}: {error}")
            raise

    def _show(self, changed: set[str]) -> None:
        try:
            state = self._compute(**self.panel.values)
        except ValueError as error:
            if not self.panel.complain_of(error):
                raise
            return
        for name in self.panel.complaints:
            self.panel.complain(name, "")
        self.state = state
        figure = self._draw(state)
        self._picture.value = png(figure)
        self._words.value = html.escape(self._say(state))
        self._goal.value = html.escape(self._verdict())

    def _verdict(self) -> str:
        if not self.target:
            return ""
        return f"Target: {self.target}: {'✓ reached' if self.reached else '✗ not yet'}."

    def _repr_mimebundle_(self, **keywords):
        return self.widget._repr_mimebundle_(**keywords)


def png(figure: Figure) -> bytes:
    """The figure as PNG; it is closed, so that figures do not pile up in a long session."""
    stream = io.BytesIO()
    figure.set_dpi(100)
    figure.canvas.print_png(stream)  # savefig would draw twice, to cut the margins
    plt.close(figure)
    return stream.getvalue()
