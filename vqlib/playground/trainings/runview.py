"""RunView: curves, histogram, reconstructions and the table of runs, drawn in the browser.

Chosen by measurement: the training sends numbers, a few times a second, and the browser draws.
matplotlib in the kernel would take its time from the training. Everything shown is in synced
traits, so a page that is loaded again shows it all; the browser answers by messages alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import anywidget
import numpy as np
import traitlets

from vqlib.diagnosis.palette import SERIES
from vqlib.playground.trainings.worker import Curves, Gallery, Use

HERE = Path(__file__).parent
DASHES = ((), (8, 3), (2, 2), (8, 2, 2, 2))


class Look(NamedTuple):
    color: str
    dash: tuple[int, ...]  #: lengths drawn and left out, in pixels; empty: a solid line


def look(index: int) -> Look:
    """The line of the ``index``-th run: its colour, and where colours repeat, other dashes."""
    count = len(SERIES)
    return Look(SERIES[index % count], DASHES[(index % count + index // count) % len(DASHES)])


def line(name: str, style: Look, curves: Curves) -> dict:
    """What the browser draws of one run: per split (n, 4) float32, step and the measures."""
    parts = {split: curve.array().tobytes() for split, curve in curves.items()}
    return {"name": name, "color": style.color, "dash": list(style.dash), **parts}


def bars(name: str, use: Use | None, color: str) -> dict:
    """The histogram of one run; {} for none."""
    if use is None:
        return {}
    counts = np.sort(use.counts)[::-1].astype(np.float32)
    return {"name": name, "where": use.where, "color": color, "counts": counts.tobytes()}


def strip(name: str, gallery: Gallery | None) -> dict:
    """Pictures above their reconstructions; {} for none."""
    if gallery is None:
        return {}
    return {
        "name": name,
        "size": list(gallery.originals.shape[:3]),
        "errors": gallery.errors,
        "originals": gallery.originals.tobytes(),
        "reconstructions": gallery.reconstructions.tobytes(),
    }


class RunView(anywidget.AnyWidget):
    """The picture.

    Args:
        answer: called with what the user asks for: "show", "restore" or "resume"; the run; and
            for "show" whether it is to be shown.
    """

    _esm = HERE / "runview.js"
    _css = HERE / "runview.css"

    lines = traitlets.List().tag(sync=True)  # of the kept runs that are ticked
    live = traitlets.Dict().tag(sync=True)  # of the run under way; {}: there is none
    bars = traitlets.Dict().tag(sync=True)
    strip = traitlets.Dict().tag(sync=True)
    rows = traitlets.List().tag(sync=True)  # of the table, see `Comparison.rows`

    def __init__(self, answer: Callable[[str, str, bool | None], None]):
        super().__init__()
        self.on_msg(lambda _, asked, buffers: answer(asked["do"], asked["run"], asked.get("on")))
