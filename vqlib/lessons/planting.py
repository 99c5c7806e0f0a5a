"""A fault planted by one parameter of the notebooks, ``ours``: in what they train and audit alike.

``ours`` is the name of a known fault (`vqlib.quantization.faults`), `NO_RESET`, or None for the
correct quantizer: ``vqlib check --set ours=cold-start`` asks which gates notice.
"""

from __future__ import annotations

from collections.abc import Iterable

from vqlib.quantization.faults import FAULTS
from vqlib.quantization.names import near
from vqlib.quantization.quantizer import NormEMAQuantizer
from vqlib.quantization.ranges import SettingsError
from vqlib.quantization.reset import DeadCodeReset
from vqlib.quantization.variants import named

NO_RESET = "reset-switched-off"


def changes(ours: str | None) -> dict[str, object]:
    """What it changes in a `TrainConfig`. Raises SettingsError for an unknown name."""
    if ours is None:
        return {}
    if ours == NO_RESET:
        return {"dead_code_threshold": 0.0}
    named(ours)
    return {"variant": ours}


def layer(ours: str | None, **settings) -> NormEMAQuantizer:
    """A quantizer with the guide's reset, and with the fault. ``settings``: its other arguments."""
    if ours == NO_RESET:
        return NormEMAQuantizer(**settings)
    return named(ours)(**settings, reset=DeadCodeReset())


def chosen(names: Iterable[str] = ()) -> dict[str, dict[str, object]]:
    """{fault: the notebooks' parameters that plant it}, of these names or of all.

    Raises SettingsError for an unknown name.
    """
    every: dict[str, dict[str, object]] = {n: {"ours": n} for n in (*FAULTS, NO_RESET)}
    every["ranks-draw-alone"]["ranks"] = True  # nothing in one process shows it
    for name in names:
        if name not in every:
            raise SettingsError(f"unknown fault {name!r}" + near(name, every), "faults")
    return {name: every[name] for name in names} or every
