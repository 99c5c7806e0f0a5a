"""A diagnosis as an HTML card, for notebooks."""

from __future__ import annotations

from vqlib.findings import Diagnosis


def card(diagnosis: Diagnosis) -> str:
    raise NotImplementedError
