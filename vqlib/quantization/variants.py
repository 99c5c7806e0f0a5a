"""Quantizers changed on purpose, by name: to test a cause, as a known fault, or as a remedy."""

from __future__ import annotations

from vqlib.quantization.faults import FAULTS
from vqlib.quantization.flatter import FLATTER
from vqlib.quantization.interventions import INTERVENTIONS
from vqlib.quantization.names import near
from vqlib.quantization.quantizer import NormEMAQuantizer
from vqlib.quantization.ranges import SettingsError
from vqlib.quantization.rivals import RIVALS


def named(name: str | None) -> type[NormEMAQuantizer]:
    """The quantizer's class; None is the correct one. Raises SettingsError for an unknown name."""
    known = {None: NormEMAQuantizer} | INTERVENTIONS | FAULTS | RIVALS | FLATTER
    if name not in known:
        text = f"unknown variant {name!r}" + near(str(name), filter(None, known))
        raise SettingsError(text, "variant")
    return known[name]
