"""Quantizers changed on purpose, by name: interventions that test a cause, and known faults."""

from __future__ import annotations

from vqlib.quantization.faults import FAULTS
from vqlib.quantization.interventions import INTERVENTIONS
from vqlib.quantization.names import near
from vqlib.quantization.quantizer import NormEMAQuantizer
from vqlib.quantization.ranges import SettingsError


def named(name: str | None) -> type[NormEMAQuantizer]:
    """The quantizer's class; None is the correct one. Raises SettingsError for an unknown name."""
    known = {None: NormEMAQuantizer} | INTERVENTIONS | FAULTS
    if name not in known:
        text = f"unknown variant {name!r}" + near(str(name), filter(None, known))
        raise SettingsError(text, "variant")
    return known[name]
