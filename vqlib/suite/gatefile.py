"""expected.toml, the file of gates, read and checked.

``notebooks/expected.toml``::

    [01_reproduce_collapse.records]
    "baseline/steps" = {}                                 # required, any value
    "baseline/val_utilization" = { max = 0.20 }           # a gate in every profile
    "baseline/tokens" = { equals = 6272, tolerance = 0 }
    "baseline/loss" = { full = { min = 0.1, max = 0.3 }, quick = "band" }
    "own/accuracy" = "optional"                           # any value, and may be missing

    [01_reproduce_collapse.claims]                        # which gates guard which claim
    "Four codes in five fall out of use" = ["baseline/val_utilization"]

    [01_reproduce_collapse.budget]                        # gates on what the execution costs
    seconds = { full = 300, quick = 60 }                  # one number: in every profile
    memory_mb = 900                                       # peak of the kernel and its children
    output_mb = 2                                         # MB: 10^6 bytes

    [01_reproduce_collapse.controls.frozen_encoder]       # run again with these parameters:
    parameters = { arm = "frozen" }
    must_fail = ["baseline/val_utilization"]              # now these gates must go red

    [measured.quick.01_reproduce_collapse]                # written by `vqlib calibrate`, at the end
    seeds = "100 to 109"                                  # and the kinds of machine, versions, date
    repeats = 10
    [measured.quick.01_reproduce_collapse.numbers]
    "baseline/loss" = { mean = 0.31, sd = 0.02, n = 20 }

See `vqlib.suite.gates` for what a gate, a band and a control are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vqlib.quantization.names import near
from vqlib.suite.errors import SuiteError, read_toml
from vqlib.suite.gates import BAND, BUDGET, Band, Control, Expected, Gate, Measurement

MEASURED = "measured"
OPTIONAL = "optional"
TABLES = ("records", "controls", "claims", "budget")
BOUNDS = ("min", "max", "equals", "tolerance")
COSTS = ("seconds", "memory_mb", "output_mb")


def read(path: Path, notebooks: Iterable[str], profiles: Iterable[str]) -> Expected:
    """Read expected.toml. Raises SuiteError listing everything in it that makes no sense."""
    problems: list[str] = []
    notebooks, profiles = set(notebooks), sorted(profiles)
    records, controls, optional, claims, budgets = {}, [], set(), {}, {}
    tables = read_toml(path)
    measured = _measured(tables.pop(MEASURED, {}), notebooks, profiles, problems)
    for notebook, table in tables.items():
        if notebook not in notebooks:
            problems.append(f"there is no notebook `{notebook}`{near(notebook, notebooks)}")
        if not _keys(table, TABLES, f"[{notebook}]", problems):
            continue
        listed, planted, claimed, limits = (
            _table(table, key, f"[{notebook}]", problems) for key in TABLES
        )
        optional |= {(notebook, name) for name, entry in listed.items() if entry == OPTIONAL}
        bands = {profile: m.numbers for (profile, of), m in measured.items() if of == notebook}
        gated = records[notebook] = _records(notebook, listed, profiles, bands, problems)
        for name, entry in planted.items():
            control = _control(notebook, name, entry, gated, problems)
            controls += [control] if control else []
        claims |= _claims(notebook, claimed, gated, problems)
        budgets[notebook] = _budget(notebook, limits, profiles, problems)
    if problems:
        raise SuiteError(f"{path.name}: {problem}" for problem in problems)
    found = frozenset(optional)
    return Expected(records, tuple(controls), found, claims, budgets, measured, path.name)


def _table(table: dict, key: str, where: str, problems: list[str]) -> dict:
    value = table.get(key, {})
    if isinstance(value, dict):
        return value
    problems.append(f"{where}: `{key}` must be a table, got {value!r}")
    return {}


def _keys(entry, known: Iterable[str], where: str, problems: list[str]) -> bool:
    if not isinstance(entry, dict):
        problems.append(f"{where}: expected a table, got {entry!r}")
        return False
    unknown = [key for key in entry if key not in known]
    problems += [f"{where}: unknown key `{key}`{near(key, known)}" for key in unknown]
    return not unknown


def _records(notebook, table, profiles, bands, problems) -> dict[str, dict[str, Gate]]:
    found = {}
    for name, entry in table.items():
        where = f"{notebook}: `{name}`"
        if name.startswith(BUDGET):
            problems.append(f"{where}: a record's name must not begin with `{BUDGET}`")
        own = {profile: numbers.get(name) for profile, numbers in bands.items()}
        gates = {} if entry == OPTIONAL else _gates(entry, profiles, own, where, problems)
        found[name] = gates
    return found


def _gates(
    entry, profiles: list[str], bands: Mapping[str, Band | None], where: str, problems: list[str]
) -> dict[str, Gate]:
    """`bands`: what was measured of this number, by profile."""
    if entry == BAND:
        known = {profile: Gate(band=band) for profile, band in bands.items() if band}
        return known or dict.fromkeys(profiles, Gate())
    if not _keys(entry, (*BOUNDS, *profiles), where, problems) or not entry:
        return {}
    per_profile = [key for key in entry if key in profiles]
    if not per_profile:
        gate = _gate(entry, where, problems)
        return dict.fromkeys(profiles, gate) if gate else {}
    if len(per_profile) < len(entry):
        problems.append(f"{where}: bounds are mixed with profiles; put them inside each profile")
        return {}
    gates = {
        key: Gate(band=bands.get(key))
        if entry[key] == BAND
        else _gate(entry[key], f"{where} ({key})", problems)
        for key in per_profile
    }
    return {key: gate for key, gate in gates.items() if gate}


def _gate(entry, where: str, problems: list[str]) -> Gate | None:
    if not _keys(entry, BOUNDS, where, problems):
        return None
    fault = _fault(entry)
    if fault:
        problems.append(f"{where}: {fault}")
        return None
    return Gate(**entry)


def _fault(entry: dict) -> str | None:
    """What is wrong with the bounds of one gate, if anything is."""
    for key, value in entry.items():
        boolean = isinstance(value, bool) and key == "equals"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not boolean and not (number and math.isfinite(value)):
            return f"`{key}` must be a finite number, got {value!r}"
    if not entry.keys() & {"min", "max", "equals"}:
        return "a gate needs `min`, `max` or `equals`"
    if "equals" in entry and entry.keys() & {"min", "max"}:
        return "`equals` cannot be combined with `min` or `max`"
    if "equals" in entry and "tolerance" not in entry and not isinstance(entry["equals"], bool):
        return "`equals` needs a `tolerance` (0 if the number must be exact)"
    if "tolerance" in entry and "equals" not in entry:
        return "`tolerance` belongs to `equals`"
    if entry.get("tolerance", 0) < 0:
        return f"`tolerance` must not be negative, got {entry['tolerance']:g}"
    if entry.get("min", -math.inf) > entry.get("max", math.inf):
        return f"`min` {entry['min']:g} lies above `max` {entry['max']:g}"
    return None


def _control(notebook, name, entry, records, problems) -> Control | None:
    where = f"[{notebook}.controls.{name}]"
    if not _keys(entry, ("parameters", "must_fail"), where, problems):
        return None
    parameters, must_fail = entry.get("parameters"), entry.get("must_fail")
    if not isinstance(parameters, dict) or not parameters:
        problems.append(f"{where}: `parameters` must be a table of the values that plant the fault")
        return None
    if not isinstance(must_fail, list) or not must_fail:
        problems.append(f"{where}: `must_fail` must list the gates that have to go red")
        return None
    gated = {record for record, gates in records.items() if gates}
    for record in must_fail:
        if record not in gated:
            problems.append(f"{where}: {_ungated(str(record), records, gated)}")
    return Control(notebook, name, parameters, tuple(map(str, must_fail)))


def _claims(notebook, table, records, problems) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    gated = {record for record, gates in records.items() if gates}
    for claim, guards in table.items():
        where = f"{notebook}: the claim `{claim}`"
        if not isinstance(guards, list) or not guards:
            problems.append(f"{where} must list the gates that guard it, got {guards!r}")
            continue
        for record in map(str, guards):
            if record not in gated:
                problems.append(f"{where}: {_ungated(record, records, gated)}")
            elif (notebook, record) in found:
                problems.append(f"{where}: `{record}` already guards another claim")
            else:
                found[notebook, record] = claim
    return found


def _ungated(record: str, records: Iterable[str], gated: Iterable[str]) -> str:
    if record in records:
        return f"`{record}` is listed without a gate; expected one, like {{ min = 0.9 }}"
    return f"`{record}` has no gate{near(record, gated)}"


def _budget(notebook, table, profiles, problems) -> dict[str, dict[str, Gate]]:
    if not _keys(table, COSTS, f"[{notebook}.budget]", problems):
        return {}

    def gate(entry):
        if isinstance(entry, dict):
            return {key: gate(value) if key in profiles else value for key, value in entry.items()}
        return {"max": entry}

    return {
        BUDGET + name: _gates(gate(entry), profiles, {}, f"[{notebook}.budget] {name}", problems)
        for name, entry in table.items()
    }


def _measured(tables, notebooks, profiles, problems) -> dict[tuple[str, str], Measurement]:
    """What `vqlib.suite.calibration` has written at the end of the file."""
    found = {}
    shaped = isinstance(tables, dict) and all(isinstance(one, dict) for one in tables.values())
    if not shaped:
        problems.append(f"[{MEASURED}]: expected tables like [{MEASURED}.quick.NOTEBOOK]")
        return found
    for profile, by_notebook in tables.items():
        for notebook, table in by_notebook.items():
            where = f"[{MEASURED}.{profile}.{notebook}]"
            if notebook not in notebooks or profile not in profiles:
                problems.append(f"{where}: there is no such profile or notebook")
                continue
            try:
                first, last = map(int, re.fullmatch(r"(\d+) to (\d+)", table["seeds"]).groups())
                repeats = int(table["repeats"])
                if repeats < 2:
                    raise ValueError("no spread")
                numbers = {
                    name: Band(float(e["mean"]), float(e["sd"]), int(e["n"]), repeats)
                    for name, e in table["numbers"].items()
                }
                kinds = tuple(map(str, table["kinds"]))
            except (KeyError, TypeError, ValueError, AttributeError):
                problems.append(f"{where}: not as `vqlib calibrate` writes it; calibrate again")
                continue
            found[profile, notebook] = Measurement(range(first, last + 1), kinds, numbers)
    return found
