"""A fault planted by one parameter of the notebooks, ``ours``: in what they train and audit alike.

``ours`` is the name of a known fault (`vqlib.quantization.faults`), `NO_RESET`, or None for the
correct quantizer: ``vqlib check --set ours=cold-start`` asks which gates notice.
"""

from __future__ import annotations

from vqlib.quantization.quantizer import NormEMAQuantizer
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
