"""How the cost of a training step grows with N, K and D: what the repository keeps, for the report.

``docs/images/growth.csv`` and its figure are written by a benchmark on a quiet machine, not by a
run of the suite.
"""

from __future__ import annotations

import base64
import csv
from dataclasses import dataclass
from pathlib import Path

from vqlib.training import places

FOLDER = places.PARENT / "docs" / "images"


@dataclass(frozen=True)
class Growth:
    """The figure as base64, the fitted exponents {"N": 1.1}, and where they come from."""

    png: str
    exponents: dict[str, float]
    date: str
    command: str
    torch: str
    threads: str
    ALT = "Milliseconds a training step over tokens, codes and dimensions, on logarithmic axes"


def read(folder: Path = FOLDER) -> Growth | None:
    """What is kept; None if nothing is, as where vqlib is installed without its repository."""
    table, figure = folder / "growth.csv", folder / "growth.png"
    if not (table.is_file() and figure.is_file()):
        return None
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    exponents = {row["varied"]: float(row["exponent"]) for row in rows}
    about = {name: rows[0][name] for name in ("date", "command", "torch", "threads")}
    return Growth(base64.b64encode(figure.read_bytes()).decode(), exponents, **about)
