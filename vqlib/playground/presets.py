"""Presets of the playground: settings worth looking at, and what to look for in them."""

from __future__ import annotations

from dataclasses import dataclass, field

from vqlib.playground.world import Setting
from vqlib.quantization.faults import EXPECTED

BED = {"codebook_size": 64, "tokens": 784, "drift": 2.0}  # N/K 12.25, as in the guide
RESET = {"threshold": 1.0}


@dataclass(frozen=True)
class Preset:
    """``a``: what it changes of `Setting`; ``b``: the rival's changes against ``a``, if any."""

    look: str
    a: dict = field(default_factory=dict)
    b: dict | None = None


# what each fault needs to show, and where to look
_FAULTS = {
    "forgets-the-count": (
        {"threshold": 5.0, "donors": "batch"},
        "B flashes without end: a moved code keeps its low count and is moved again.",
    ),
    "undone-by-the-average": (
        {},
        "B counts resets and nothing moves: the average writes the old codes back.",
    ),
    "counts-in-evaluation": (
        {"threshold": 5.0},
        "Every ten steps both are validated. B's counts follow the validation too, so B resets "
        "other codes, and more of them.",
    ),
    "inconsistent-start": (
        {"threshold": 0.0, "surface": "circle"},
        "After its first step B's unhit codes lie far outside the circle: sums over counts of "
        "almost 0, never to be chosen.",
    ),
    "ranks-draw-alone": (
        {},
        "Nothing to see, and that is the point: in a single process it works. Ask vqlib.audit.",
    ),
    "unseeded-draws": (
        {"threshold": 5.0},
        "A and B share a seed and a history until the first reset. Press reset: B differs.",
    ),
    "cold-start": (
        {"drift": 0.5},
        "Press Step once: at step 1, B throws away a large part of its k-means codebook.",
    ),
    "draws-with-replacement": (
        {"start": "random directions", "every": 50, "drift": 0},
        "At step 50 B moves several codes onto one token. Here such twins part again when one of "
        "them moves. If many inputs are equal, all but one stay dead.",
    ),
    "resets-end-early": (
        {"drift": 2.0},
        "Until step 40 A and B are one. Then B resets no more, and its codes fall behind.",
    ),
    "passes-two-dimensions": (
        {"surface": "plane"},
        "B's codes all lie on one line: two of three dimensions reach them. Most are in use, and "
        "none tells left from right.",
    ),
    "sums-its-loss": (
        {},
        "Nothing to see in the codes: this encoder moves by itself and learns from no loss. Only "
        "B's loss, in the sentence below, is larger, by the number of dimensions.",
    ),
    "unreachable-threshold": (
        {"threshold": 1.0},
        "B's threshold is twice N/K: at most half of the codes can be above it. Resets never end.",
    ),
    "waits-for-zero": (
        {},
        "B waits for a count of exactly 0, which takes hundreds of steps without a hit.",
    ),
    "averages-twice": (
        {"threshold": 0.0},
        "The codes are the same, but B's loss, in the sentence below, is divided by N twice.",
    ),
}

PRESETS: dict[str, Preset] = {
    "the guide's baseline": Preset(
        "No reset. Codes that the cloud has left stay behind: nothing moves an unused code. Some "
        "live again when the cloud comes by. A real encoder hardly ever comes back."
    ),
    "a shrinking encoder": Preset(
        "No reset, and all outputs draw together: one code after another is left outside.",
        {"pattern": "shrink"},
    ),
    "the guide's reset": Preset(
        "Threshold 1: dead codes jump onto tokens of the most used code.", RESET
    ),
    **{
        f"threshold {t:g}": Preset(
            f"Dead below {t:g} hits a step. Watch the ceiling and the grace under the sliders.",
            {"threshold": t},
        )
        for t in (0.5, 5.0, 10.0)
    },
    "threshold 25, above N/K": Preset(
        "Twice the average count: half of the codes are always dead, and resets never end.",
        {"threshold": 25.0},
    ),
    "baseline beside reset": Preset(
        "The same tokens, the same drift: only the reset differs.", {}, RESET
    ),
    "best known": Preset(
        "Found by a sweep in this world: a short memory, a threshold of a tenth of N/K, no token "
        "twice. A short memory costs little if every code has many tokens.",
        {"threshold": 0.1, "relative": True, "distinct": True, "decay": 0.2},
    ),
    "a still encoder": Preset(
        "Nothing drifts, so nothing dies, even without a reset.", {"drift": 0}
    ),
    **{
        f"fault: {name}": Preset(
            f"{look} (The diagnosis calls it {EXPECTED[name]}.)", RESET | changes, {"variant": name}
        )
        for name, (changes, look) in _FAULTS.items()
    },
}


def setting(name: str, side: str = "A", **changes) -> Setting:
    """A preset's setting with ``changes``; side "B" is its rival's.

    Raises KeyError for an unknown name, ValueError if a preset has no side B.
    """
    chosen = PRESETS[name]
    if side == "B" and chosen.b is None:
        raise ValueError(f"side B: the preset {name!r} compares nothing")
    rival = chosen.b if side == "B" else {}
    return Setting(**BED | chosen.a | rival | changes)
