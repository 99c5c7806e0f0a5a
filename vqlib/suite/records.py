"""Numbers that leave a notebook: `record` puts one into its output, `collect` reads them back."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Mapping
from typing import Any, Protocol

MIME = "application/vnd.vqlib.record+json"

Number = int | float | bool


class Scalar(Protocol):
    """NumPy's and torch's scalars, as far as they are asked for."""

    def item(self) -> Any: ...


def record(name: str, value: Number | Scalar) -> None:
    """Let a number leave the notebook under `name`, e.g. ``record("after/val_utilization", 0.97)``.

    `value`: an int, a float, a bool, or a 0-d NumPy or torch scalar. In a notebook it shows as
    one quiet line; outside IPython only the check is done.

    Raises ValueError if the name is empty, or the value is not one finite number.
    """
    if not isinstance(name, str) or not name.strip() or name != name.strip():
        raise ValueError(f"record: the name must be a non-empty string, got {name!r}")
    number = _number(name, value)
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        return
    line = f"record {name} = {_short(number)}"
    ipython.display.display({MIME: {"name": name, "value": number}, "text/plain": line}, raw=True)


def collect(notebook: Mapping) -> dict[str, Number]:
    """The records in the cell outputs of an executed notebook, in the order they were made.

    Raises ValueError if one name carries two different values, or if an output of the record
    type does not hold a name and a finite number.
    """
    found: dict[str, Number] = {}
    for cell in notebook["cells"]:
        for payload in _payloads(cell):
            name, value = _payload(payload)
            if name in found and found[name] != value:
                raise ValueError(
                    f"record `{name}` was made twice with different values: "
                    f"{_short(found[name])}, then {_short(value)}; give each its own name"
                )
            found[name] = value
    return found


def named(cell: Mapping) -> set[str]:
    """The names of the records in the outputs of one cell."""
    return {str(p.get("name")) for p in _payloads(cell) if isinstance(p, Mapping)}


def _payloads(cell: Mapping) -> list:
    found = [output.get("data", {}).get(MIME) for output in cell.get("outputs", ())]
    return [payload for payload in found if payload is not None]


def _payload(payload: Any) -> tuple[str, Number]:
    if not isinstance(payload, Mapping) or set(payload) != {"name", "value"}:
        raise ValueError(f"a record output must hold `name` and `value`, got {payload!r}")
    return payload["name"], _number(payload["name"], payload["value"])


def _number(name: str, value: Any) -> Number:
    # NumPy and torch scalars alike: no dimension, and .item() gives the Python number
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, numbers.Real):
        shape = getattr(value, "shape", None)
        given = type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
        raise ValueError(f"record `{name}`: expected one number, got {given}")
    if not math.isfinite(value):
        raise ValueError(f"record `{name}`: expected a finite number, got {value}")
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _short(value: Number) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
