"""Playground: a codebook of the 2-D world, with every setting under a slider, alone or in pairs."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import fields
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from vqlib.playground import stills
from vqlib.playground.controls import Choice, Control, Panel, Slider, Switch
from vqlib.playground.frames import limits, words
from vqlib.playground.live import Live
from vqlib.playground.presets import BED, PRESETS
from vqlib.playground.world import Setting, World
from vqlib.quantization.faults import FAULTS
from vqlib.quantization.names import near
from vqlib.quantization.ranges import SettingsError, one_of

DATA: tuple[Control, ...] = (
    Choice(
        "surface",
        "world",
        "plane",
        {"a plane": "plane", "the unit circle": "circle"},
        "How points reach the quantizer: as a flat patch of the sphere, or on a circle.",
    ),
    Slider("tokens", "tokens N", 784, 16, 4096, 1, "a step", "Points quantized in each step."),
    Slider(
        "drift",
        "drift",
        2.0,
        0,
        10,
        0.1,
        "% of radius",
        "How far the encoder moves in a step, in percent of the cloud's initial radius.",
    ),
    Choice(
        "pattern",
        "pattern",
        "translate",
        {p: p for p in ("translate", "rotate", "shrink", "spread")},
        "How the encoder moves.",
    ),
    Switch("freeze", "freeze encoder", False, "The encoder stands still from now on."),
    Slider(
        "seed", "seed", 0, 0, 99, 1, "of all draws", "Seed of the points and the quantizer's draws."
    ),
    Switch("compare", "compare A and B", False, "Show a second codebook on the same points."),
)
CODEBOOK: tuple[Control, ...] = (
    Slider(
        "codebook_size", "codes K", 64, 2, 512, 1, "codes", "The number of codes in the codebook."
    ),
    Slider(
        "decay",
        "decay",
        0.9,
        0,
        1,
        0.005,
        "of the old",
        "Memory of codes and counts: the share of the old value kept in a step.",
    ),
    Slider(
        "threshold",
        "threshold",
        0.0,
        0,
        50,
        0.1,
        "hits a step",
        "A code with a lower count (EMA) is dead and is reset. 0: no reset.",
    ),
    Switch(
        "relative",
        "as multiples of N/K",
        False,
        "Read threshold and refill as multiples of N/K, so that they fit any N and K.",
    ),
    Slider("every", "every", 1, 1, 50, 1, "steps", "Reset only at every n-th step."),
    Choice(
        "donors",
        "donors",
        "most_used",
        {
            "the most used code": "most_used",
            "the eight most used": "top",
            "any token": "batch",
            "by long-run use": "usage",
        },
        "Whose tokens a dead code is moved to.",
    ),
    Slider(
        "refill",
        "refill",
        0.0,
        0,
        60,
        0.1,
        "hits (0: thr. + 1)",
        "The count that a reset code starts with; 0 means threshold + 1.",
    ),
    Switch("distinct", "no token twice", False, "Two dead codes never move to one token."),
    Choice(
        "start",
        "start",
        "k-means",
        {s: s for s in ("k-means", "random inputs", "random directions", "unbalanced")},
        "Where the codes start. Changing it restarts the run.",
    ),
    Choice(
        "variant",
        "quantizer",
        "sound",
        {"correct": "sound"} | {n: n for n in FAULTS},
        "The correct quantizer, or one with a fault seen in public code.",
    ),
)
OWN = "a setting of your own"
SPEED = Slider("speed", "speed", 30, 1, 240, 1, "steps/s", "How fast it plays.")
TABS = ("Codebook A", "Codebook B")


class Playground:
    """A codebook you can watch die: display it, or drive it from code.

    ``set`` takes every control by its name; those of codebook B end in ``_b``.

    Attributes:
        a, b: the two worlds; b is there, but shown and stepped only when comparing.
    """

    def __init__(self, **values: Any):
        second = [_renamed(control) for control in CODEBOOK]
        self.lock = threading.RLock()
        self.panels = {
            "data": Panel(DATA, "The encoder and its tokens", self.lock),
            "a": Panel(CODEBOOK, lock=self.lock),
            "b": Panel(second, lock=self.lock),
            "speed": Panel([SPEED], lock=self.lock),
        }
        self.a, self.b = World(self._setting("a")), World(self._setting("b"))
        actions = {"toggle": self.toggle, "step": self.step, "reset": self.reset}
        self.canvas = Live(self._shown, actions, self.lock)
        self._preset = widgets.Dropdown(
            options=[OWN, *PRESETS], description="preset", tooltip="Settings worth looking at."
        )
        self._look, self._told, self._taking = widgets.HTML(), OWN, False
        self._buttons()
        for panel in self.panels.values():
            panel.observe(self._moved)
        self._preset.observe(self._chosen, "value")
        self._tabs = widgets.Tab(layout={"width": "388px"})
        self.widget = self._layout()
        self.preset(next(iter(PRESETS)))
        self.set(**values)

    # --- what a user or a script does ---

    def set(self, **values: Any) -> None:
        """Move controls as a user would.

        Raises ValueError for an unknown control, a value out of its range, or values that do
        not go together.
        """
        names = self._names
        for name, value in values.items():
            if name not in names:
                raise ValueError(f"no control is called {name!r}" + near(name, names))
            names[name].controls[name].checked(value)
        self._put(values)
        for panel in self.panels.values():
            panel.refuse_complaints()

    def preset(self, name: str) -> None:
        """Take a preset and start over. Raises SettingsError for an unknown one."""
        chosen = PRESETS[one_of("preset", name, PRESETS)]
        plain = {c.name: c.value for c in (*DATA, *CODEBOOK)} | BED | chosen.a
        rival = {c.name: plain[c.name] for c in CODEBOOK} | (chosen.b or {})
        plain["compare"] = chosen.b is not None
        with self.lock:
            self._taking = True
            try:
                self._put(plain | {f"{name}_b": value for name, value in rival.items()})
            finally:
                self._taking = False
            self._follow(anew=True)
            self._tell_preset(name)

    def step(self, count: int = 1) -> None:
        """Train for ``count`` more steps and show them."""
        with self.lock:
            for world in self._shown().values():
                world.step(count)
            self.canvas.show()

    def reset(self) -> None:
        """Start over and take the first step: before it there is no codebook to see."""
        with self.lock:
            for world in (self.a, self.b):
                world.restart()
            self.step()

    def play(self) -> None:
        """Run by itself for as long as a page shows it."""
        self.canvas.playing = True

    def pause(self) -> None:
        """Stand still."""
        self.canvas.playing = False

    def toggle(self) -> None:
        """Play or pause."""
        self.canvas.playing = not self.canvas.playing

    def summary(self) -> str:
        """What is shown, in one sentence for each codebook."""
        shown = self._shown()
        if len(shown) == 1:
            return words(self.a)
        return " ".join(f"{side}: {words(world)}" for side, world in shown.items())

    def figure(self) -> Figure:
        """What is shown, still: for readers without a kernel."""
        return stills.worlds(self._shown())

    # --- wiring ---

    @property
    def _names(self) -> dict[str, Panel]:
        """{control: the panel that holds it}."""
        return {name: panel for panel in self.panels.values() for name in panel.controls}

    def _put(self, values: dict[str, Any]) -> None:
        """Move controls; each panel tells of it once."""
        names = self._names
        with self.lock, ExitStack() as stack:
            for panel in self.panels.values():
                stack.enter_context(panel.together())
            for name, value in values.items():
                names[name].set(**{name: value})

    def _chosen(self, change) -> None:
        if change.new != OWN and change.new != self._told:
            self.preset(change.new)

    def _tell_preset(self, name: str) -> None:
        """Name the preset that the controls show, if it is one."""
        self._told = name
        self._preset.value = name
        self._look.value = "" if name == OWN else PRESETS[name].look

    def _shown(self) -> dict[str, World]:
        both = self.panels["data"].values["compare"]
        return {"A": self.a, "B": self.b} if both else {"A": self.a}

    def _setting(self, side: str) -> Setting:
        """The setting that the controls of a side ask for. Raises SettingsError as `Setting`."""
        data = self.panels["data"].values
        own = {name.removesuffix("_b"): v for name, v in self.panels[side].values.items()}
        asked = data | own | {"refill": own["refill"] or None}
        asked["variant"] = None if own["variant"] == "sound" else own["variant"]
        return Setting(**{f.name: asked[f.name] for f in fields(Setting)})

    def _moved(self, changed: set[str]) -> None:
        if self._taking:
            return  # a preset moves many panels, and is followed once
        if changed - {"speed"}:
            self._tell_preset(OWN)
        self._follow(anew="compare" in changed)

    def _follow(self, anew: bool) -> None:
        """Bring canvas and worlds to what the controls say; ``anew``: from the first step on."""
        self.canvas.speed = self.panels["speed"].values["speed"]
        for side, world in (("a", self.a), ("b", self.b)):
            setting = self._asked(side)
            if setting is not None and setting != world.setting:
                anew |= world.change(setting)
        self._tabs.children = [self.panels[side.lower()].widget for side in self._shown()]
        self._tabs.titles = TABS[: len(self._tabs.children)]
        self.canvas.titles = {s: stills.title(w.setting) for s, w in self._shown().items()}
        if anew:
            self.reset()
        else:
            self.canvas.show()

    def _asked(self, side: str) -> Setting | None:
        """The side's setting, its meaning and its faults written beside the controls."""
        panel, end = self.panels[side], "_b" if side == "b" else ""
        for name in panel.complaints:
            panel.complain(name, "")
        try:
            setting = self._setting(side)
        except SettingsError as error:
            if not panel.complain_of(error, end):
                raise
            return None
        ceiling, grace = limits(
            setting.reset(), setting.codebook_size, setting.tokens, setting.decay
        )
        panel.note(f"threshold{end}", ceiling)
        panel.note(f"every{end}", grace)
        return setting

    def _buttons(self) -> None:
        def button(name, icon, tooltip, act):
            made = widgets.Button(description=name, icon=icon, tooltip=tooltip)
            made.layout.width = "92px"
            made.add_class(f"vq-{name.lower()}")
            made.on_click(lambda _: act())
            return made

        play = button("Play", "play", "Play or pause (space)", self.toggle)
        self.buttons = [
            play,
            button("Step", "step-forward", "One training step (.)", self.step),
            button("Reset", "undo", "Start over (r)", self.reset),
        ]

        def shown(change) -> None:
            play.description = "Pause" if change.new else "Play"
            play.icon = "pause" if change.new else "play"

        self.canvas.observe(shown, "playing")

    def _layout(self) -> widgets.Widget:
        self._look.add_class("vq-look")
        transport = widgets.HBox([*self.buttons, self.panels["speed"].widget])
        head = widgets.HBox([self._preset, self._look], layout={"flex_flow": "row wrap"})
        left = widgets.VBox([self.panels["data"].widget, self._tabs])
        # shrinks before it wraps: a slider and what it changes are seen together
        right = widgets.VBox([transport, self.canvas], layout={"flex": "1 1 540px"})
        both = widgets.HBox([left, right], layout={"flex_flow": "row wrap", "grid_gap": "12px"})
        whole = widgets.VBox([head, both])
        whole.add_class("vq-playground")
        return whole

    def _repr_mimebundle_(self, **keywords):
        return self.widget._repr_mimebundle_(**keywords)


def _renamed(control: Control) -> Control:
    """The same control for codebook B."""
    values = {f.name: getattr(control, f.name) for f in fields(control)}
    return type(control)(**values | {"name": f"{control.name}_b"})
