"""A first expected.toml for notebooks that have none, from what one execution recorded and cost."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vqlib.suite import foreign
from vqlib.suite.errors import SuiteError
from vqlib.suite.records import Number
from vqlib.suite.results import Result
from vqlib.suite.run import execute

BAND = 0.1  # of a float's value: a guess, as the file says
ROOM = {"seconds": 5.0, "memory_mb": 2.0, "output_mb": 2.0}  # a budget's share of what was measured
LEAST = {"seconds": 60.0, "memory_mb": 200.0, "output_mb": 1.0}
HEAD = """\
# A first version, written by `vqlib expect` on {date} from one execution.
# One execution does not show how far a number moves by itself. What a person has to decide:
#   1. Which numbers carry a claim. The others need no gate: write {{}}.
#   2. Their bands. The ± {band:.0f} % below are a guess: write "band" instead, and let
#      `vqlib calibrate` measure it, if the notebook has a parameter `first_seed` or `seed`.
#      `min` or `max` alone is often what the text claims.
#   3. Which sentence of the notebook each gate guards: a [NAME.claims] table.
#   4. Which planted fault must turn it red: a [NAME.controls.FAULT] table.
# Then delete these lines.
"""
DECIDE = (
    "bands from one run are a guess: vqlib calibrate measures them on fresh seeds",
    "numbers that carry no claim need no gate: write {} for them",
    "say which sentence each gate guards, in a [NAME.claims] table",
)


def expect(
    notebooks: Sequence[Path],
    out: Path,
    *,
    profile: Path | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
    **options,
) -> list[Result]:
    """Execute the notebooks and write `out`, unless one of them fails (`Result.error`).

    `options` are those of `run.execute`. Raises SuiteError, before anything runs, if `out` exists
    or the notebooks or the profile are malformed; afterwards, if nothing was recorded.
    """
    if out.exists():
        raise SuiteError(
            f"{out} exists; expected a name that is not taken (--out FILE); its tables can then be "
            "moved, for one file can hold those of many notebooks"
        )
    suite = foreign.load(notebooks, None, profile, overrides)
    results = execute(suite, **options)
    if any(result.error for result in results):
        return results
    silent = [result.notebook for result in results if not result.records]
    if silent:
        raise SuiteError(
            f"{name} recorded no number; expected vqlib.record(NAME, NUMBER) in a cell"
            for name in silent
        )
    with open(out, "x", encoding="utf-8") as file:
        file.write(text(results))
    return results


def text(results: Sequence[Result]) -> str:
    """The file for these results."""
    head = HEAD.format(date=datetime.date.today().isoformat(), band=100 * BAND)
    return "\n".join([head, *map(_notebook, results)])


def _notebook(result: Result) -> str:
    name = _key(result.notebook)
    lines = [f"[{name}.records]"]
    lines += [f"{_quoted(record)} = {_band(value)}" for record, value in result.records.items()]
    lines += ["", f"[{name}.budget]  # a few times what this execution took"]
    for cost, measured in result.cost.named().items():
        if measured is not None:
            limit = _round_up(max(LEAST[cost], ROOM[cost] * measured))
            lines.append(f"{cost} = {limit:g}  # measured: {measured:.3g}")
    return "\n".join([*lines, ""])


def _band(value: Number) -> str:
    """The gate as TOML: exact for what is counted, a band for what is measured."""
    if isinstance(value, bool):
        return f"{{ equals = {str(value).lower()} }}"
    if isinstance(value, int):
        return f"{{ equals = {value}, tolerance = 0 }}"
    return f"{{ equals = {float(f'{value:.6g}')!r}, tolerance = {_round_up(BAND * abs(value))!r} }}"


def _round_up(value: float) -> float:
    """To two significant digits."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
