"""Live: the canvas that draws worlds, and the pace at which they run.

The page asks for a picture, the kernel steps its worlds and answers, the page draws and asks
again. Few questions are under way at a time, so nothing piles up if one of them is slow, and a
page that is closed stops the play by asking no more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from vqlib.playground.frames import Trails, frame
from vqlib.playground.world import World

MOST_STEPS = 12  # for one picture, however long the page has been silent


# Chosen by measurement in JupyterLab and headless Chromium (one scene, two cores; frames a second,
# 95th percentile of the delay): anywidget with binary buffers 41, 63 ms; ipycanvas 51, 65 ms;
# matplotlib as JPEG 19, 79 ms, as PNG 16, 81 ms; plotly's FigureWidget 11, 122 ms.
class Live(anywidget.AnyWidget):
    """A canvas. ``worlds`` is called for {side: world} whenever a picture is made; ``actions``
    are what the page's keys do; ``lock`` keeps a change of the worlds and a step apart.

    Attributes:
        playing: whether the page asks for pictures. speed: steps a second.
        revision: raised by `show`; the page repeats it, so that a test can tell which picture
        shows a change.
    """

    _esm = Path(__file__).with_name("live.js")
    _css = Path(__file__).with_name("live.css")
    playing = traitlets.Bool(False).tag(sync=True)
    speed = traitlets.Int(30).tag(sync=True)

    def __init__(
        self,
        worlds: Callable[[], Mapping[str, World]],
        actions: Mapping[str, Callable[[], None]],
        lock: threading.RLock,
    ):
        super().__init__()
        self.lock = lock
        self.worlds, self.actions = worlds, dict(actions)
        self.titles: dict[str, str] = {}
        self.revision = 0
        self._trails: dict[str, Trails] = {}
        self._clock, self._debt = time.monotonic(), 0.0
        self.on_msg(self._hear)

    def picture(self) -> tuple[dict, list[bytes]]:
        """(message, buffers): what the page needs to draw all worlds."""
        sides, buffers = {}, []
        for side, world in self.worlds().items():
            sides[side], block = frame(world, self._trails.setdefault(side, Trails()))
            buffers.append(block)
        message = {"kind": "frame", "sides": sides, "compare": len(sides) > 1}
        return message | {"titles": self.titles, "revision": self.revision}, buffers

    def show(self) -> None:
        """Send a picture now: something has changed."""
        with self.lock:
            self.revision += 1
            self._draw()

    def _draw(self, answer: bool = False) -> None:
        message, buffers = self.picture()
        self.send(message | {"answer": answer}, buffers)

    def _hear(self, widget: Any, message: Mapping, buffers: Any) -> None:
        try:
            with self.lock:
                self._do(message.get("kind"))
        except Exception as error:
            # nobody sees what is raised here, so the page is told; and it must stop asking
            self.playing = False
            self.send({"kind": "error", "text": f"{type(error).__name__}: {error}", "answer": True})
            raise

    def _do(self, kind: str) -> None:
        if kind == "next":
            self._next()
        elif kind == "show":
            self._draw(answer=True)
        else:
            self.actions[kind]()
            self.send({"kind": "done", "answer": True})

    def _next(self) -> None:
        """Answer with the worlds as far on as the time since the last answer allows."""
        if not self.playing:
            return self.send({"kind": "same", "answer": True})
        now = time.monotonic()
        self._debt = min(MOST_STEPS, self._debt + (now - self._clock) * self.speed)
        self._clock = now
        steps = int(self._debt)
        self._debt -= steps
        if steps == 0:
            return self.send({"kind": "same", "answer": True})
        for world in self.worlds().values():
            world.step(steps)
        return self._draw(answer=True)
