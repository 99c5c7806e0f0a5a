"""Controls: sliders, choices and switches, each with a typed field, a unit and a tooltip.

A control is described by plain data; a `Panel` makes the widgets, gathers their values, and says
beside a control what it means or what is wrong with it. Callbacks are ordinary functions, so an
exception in one is an exception of whoever set the value: a papermill run fails by it.
"""

from __future__ import annotations

import html
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from vqlib.quantization.names import near
from vqlib.quantization.ranges import Range, SettingsError, number, one_of, switch

STYLE = """<style>
.vq-panel { min-width: 340px; font-variant-numeric: tabular-nums }
.vq-row { align-items: center; flex-flow: row wrap; margin: 0; min-height: 28px; overflow: visible }
.vq-row .widget-readout { border: 1px solid var(--jp-border-color1, #bbb); border-radius: 3px;
  min-width: 52px; width: 52px; text-align: right; padding: 0 4px; flex: none }
.vq-unit { font-size: 11px; color: var(--jp-ui-font-color2, #666); min-width: 74px }
.vq-said { flex-basis: 100%; height: auto; font-size: 11px; padding-left: 88px;
  color: var(--jp-ui-font-color2, #666) }
.vq-said .widget-html-content, .vq-said > div { font-size: 11px; line-height: 1.3 }
.vq-said.vq-wrong, .vq-error { color: var(--jp-error-color1, #B23A00); font-weight: 600 }
.vq-row.vq-plain .vq-said { display: none }
</style>"""


@dataclass(frozen=True)
class Slider:
    """A number in [low, high]; whole if ``step`` is an int. ``log`` slides by factors.

    Raises ValueError if it has no unit or no help text (its tooltip).
    """

    name: str
    label: str
    value: float
    low: float
    high: float
    step: float
    unit: str
    help: str
    log: bool = False

    def __post_init__(self):
        if not (self.unit and self.help):
            raise ValueError(f"the slider {self.name!r} needs a unit and a help text")

    def checked(self, value: Any) -> float:
        """``value`` as this control holds it. Raises SettingsError if it cannot."""
        whole = isinstance(self.step, int) and not self.log
        if whole and isinstance(value, float) and value.is_integer():
            value = int(value)
        value = number(self.name, value, Range(self.low, self.high), whole=whole)
        return value if whole else float(value)

    def widget(self) -> widgets.Widget:
        if self.log:
            ends = {"min": math.log10(self.low), "max": math.log10(self.high), "step": self.step}
            return widgets.FloatLogSlider(value=self.value, readout_format=".2g", **ends)
        if isinstance(self.step, int):
            make, form = widgets.IntSlider, "d"
        else:
            make, form = widgets.FloatSlider, f".{max(0, -math.floor(math.log10(self.step)))}f"
        ends = {"min": self.low, "max": self.high, "step": self.step}
        return make(value=self.value, readout_format=form, **ends)


@dataclass(frozen=True)
class Choice:
    """One of ``options``, {what is shown: value}."""

    name: str
    label: str
    value: Any
    options: Mapping[str, Any]
    help: str
    unit: str = ""

    def checked(self, value: Any) -> Any:
        """``value`` itself. Raises SettingsError if it is no option."""
        return one_of(self.name, value, self.options.values())

    def widget(self) -> widgets.Widget:
        return widgets.Dropdown(options=list(self.options.items()), value=self.value)


@dataclass(frozen=True)
class Switch:
    """On or off."""

    name: str
    label: str
    value: bool
    help: str
    unit: str = ""

    def checked(self, value: Any) -> bool:
        """``value`` itself. Raises SettingsError if it is neither True nor False."""
        return switch(self.name, value)

    def widget(self) -> widgets.Widget:
        return widgets.Checkbox(value=self.value, indent=False)


Control = Slider | Choice | Switch


class Panel:
    """A column of controls.

    Args:
        controls: what it holds. title: shown above.
        lock: held while a change is told; one of its own if None. JupyterLab hands messages of
            different widgets to different threads of the kernel.

    Attributes:
        controls: {name: its description}. fields: {name: the widget that holds its value}.
        widget: the column itself, to display.
    """

    def __init__(
        self, controls: Iterable[Control], title: str = "", lock: threading.RLock | None = None
    ):
        self.lock = lock or threading.RLock()
        self.controls = {control.name: control for control in controls}
        self.fields = {name: c.widget() for name, c in self.controls.items()}
        self._said = {name: widgets.HTML() for name in self.controls}
        self._rows = {name: self._row(name) for name in self.controls}
        head = [widgets.HTML(STYLE + (f"<b>{html.escape(title)}</b>" if title else ""))]
        self.widget = widgets.VBox([*head, *self._rows.values()])
        self.widget.add_class("vq-panel")
        self._listeners: list[Callable[[set[str]], None]] = []
        self._held: set[str] | None = None
        for name, field in self.fields.items():
            field.observe(lambda change, name=name: self._changed(name), "value")

    @property
    def values(self) -> dict[str, Any]:
        """The value of every control."""
        # a slider counts in steps, and 5 times 0.1 should be 0.5
        return {n: _round(field.value) for n, field in self.fields.items()}

    def set(self, **values: Any) -> None:
        """Move controls as a user would; listeners are called once, for all of them.

        Raises ValueError, with nothing moved, for an unknown name or a value out of range.
        """
        for name in values:
            if name not in self.controls:
                raise ValueError(f"no control is called {name!r}" + near(name, self.controls))
        checked = {name: self.controls[name].checked(value) for name, value in values.items()}
        with self.together():
            for name, value in checked.items():
                self.fields[name].value = value

    @contextmanager
    def together(self):
        """Listeners hear of all changes inside the block at once, at its end."""
        with self.lock:
            if self._held is not None:  # an outer block will tell
                yield
                return
            self._held = set()
            try:
                yield
            finally:
                changed, self._held = self._held, None
            if changed:
                self._tell(changed)

    def observe(self, listener: Callable[[set[str]], None]) -> None:
        """Call ``listener`` with the names of the controls that moved, after each move."""
        self._listeners.append(listener)

    def note(self, name: str, text: str) -> None:
        """Say under a control what its value means; "" says nothing."""
        self._say(name, text, wrong=False)

    def complain(self, name: str, text: str) -> None:
        """Say under a control what is wrong with its value; "" takes it back."""
        self._say(name, text, wrong=bool(text))

    def complain_of(self, error: Exception, suffix: str = "") -> bool:
        """Say what is wrong under the control that ``error.field`` names; False: it names none.

        ``suffix``: what the controls' names end in, and the fields' do not.
        """
        name = getattr(error, "field", "") + suffix
        if name in self.controls:
            self.complain(name, str(error))
        return name in self.controls

    @property
    def complaints(self) -> dict[str, str]:
        """{name: what is wrong with it}."""
        wrong = (n for n, said in self._said.items() if "vq-wrong" in said._dom_classes)
        return {name: html.unescape(self._said[name].value) for name in wrong}

    def refuse_complaints(self) -> None:
        """Raise the first of the complaints, if any, as a SettingsError."""
        for name, text in self.complaints.items():
            raise SettingsError(text, name)

    def show(self, name: str, shown: bool) -> None:
        """Show or hide a control."""
        self._rows[name].layout.display = None if shown else "none"

    def _row(self, name: str) -> widgets.Box:
        control, field, said = self.controls[name], self.fields[name], self._said[name]
        field.description, field.tooltip = control.label, control.help
        field.style.description_width = "80px"
        field.layout.width = "256px"
        if isinstance(control, Switch):
            field.layout.width, field.layout.margin = "auto", "0 0 0 88px"
        unit = widgets.HTML(html.escape(control.unit))
        unit.add_class("vq-unit")
        said.add_class("vq-said")
        row = widgets.HBox([field, unit, said])
        for css in ("vq-row", "vq-plain", f"vq-{name}"):
            row.add_class(css)
        return row

    def _say(self, name: str, text: str, *, wrong: bool) -> None:
        said, row = self._said[name], self._rows[name]
        said.value = html.escape(text)
        (said.add_class if wrong else said.remove_class)("vq-wrong")
        (row.remove_class if text else row.add_class)("vq-plain")

    def _changed(self, name: str) -> None:
        with self.lock:
            if self._held is None:
                self._tell({name})
            else:
                self._held.add(name)

    def _tell(self, changed: set[str]) -> None:
        for listener in self._listeners:
            listener(changed)


def _round(value: Any) -> Any:
    return float(f"{value:.12g}") if isinstance(value, float) else value
