"""How far to trust the gates: false alarms on fresh seeds, and planted faults that turn them red.

It is kept in ``trust.toml`` beside expected.toml, with the digest of the gates that it judged.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tomlkit

from vqlib.suite.errors import SuiteError, read_toml
from vqlib.suite.gatefile import MEASURED

FILE = "trust.toml"
ABOUT = ("date", "command", "profile", "notebooks", "seeds", "kinds", "vqlib", "torch", "judged")
NOTE = "Written by `vqlib trust`: what the gates do on fresh seeds and with planted faults."


@dataclass(frozen=True)
class Trust:
    """What was measured, and on what.

    Attributes:
        about: date, command, profile, notebooks, seeds, kinds of machine, versions; the digest of
            the gates.
        executions: without a fault. gates: how many gates were judged in all of them.
        alarms: a sentence for each of these gates that went red.
        found: fault -> the gates that it turned red, on any seed and kind.
        planted, detected: executions are grouped by fault, seed and kind; how many such groups
            there were, and in how many of them a gate went red.
        failed: a sentence for each execution that could not run.
    """

    about: dict[str, object]
    executions: int
    gates: int
    alarms: list[str] = field(default_factory=list)
    found: dict[str, list[str]] = field(default_factory=dict)
    planted: int = 0
    detected: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def missed(self) -> list[str]:
        """The faults that turned no gate red."""
        return [fault for fault, red in self.found.items() if not red]

    def written(self) -> str:
        """As TOML."""
        document = tomlkit.document()
        document.add(tomlkit.comment(NOTE))
        said = {
            "about": self.about,
            "false_alarms": {
                "executions": self.executions,
                "gates": self.gates,
                "red": _lines(self.alarms),
                "failed": _lines(self.failed),
            },
            "detection": {
                "planted": self.planted,
                "detected": self.detected,
                "red": {fault: _lines(red) for fault, red in self.found.items()},
            },
        }
        for name, table in said.items():
            document.add(name, tomlkit.item(table))
        return tomlkit.dumps(document)

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"false alarms: {len(self.alarms)} of {self.gates} gates, on {self.executions} "
            "executions",
            *(f"  {line}" for line in self.alarms),
            f"detection: {len(self.found) - len(self.missed)} of {len(self.found)} faults turned a "
            f"gate red, in {self.detected} of {self.planted} tries",
            *(f"  {fault}: {', '.join(red) or 'NOT FOUND'}" for fault, red in self.found.items()),
            *(f"could not run: {line}" for line in self.failed),
        ]
        return "\n".join(lines)


def read(expected: Path) -> Trust | None:
    """What was measured of the gates in the file `expected`; None if nothing was.

    Raises SuiteError if it cannot be read.
    """
    file = expected.with_name(FILE)
    if not file.exists():
        return None
    said = read_toml(file)
    try:
        sound, sick = said["false_alarms"], said["detection"]
        counts = sound["executions"], sound["gates"], sound["red"]
        tries = sick["planted"], sick["detected"], sound["failed"]
        about = {key: said["about"][key] for key in ABOUT}
        return Trust(about, *counts, sick["red"], *tries)
    except KeyError as error:
        raise SuiteError(f"{file}: {error} is missing; measure again with vqlib trust") from None


def digest(expected: Path, notebooks: Iterable[str]) -> str:
    """Of the gates of these notebooks in a file of gates, and of the numbers behind their bands.

    What names a claim, plants a fault or limits a cost passes no number, and does not count.
    """
    said = tomllib.loads(expected.read_text(encoding="utf-8"))
    names = sorted(notebooks)
    records = [said.get(name, {}).get("records") for name in names]
    measured = [
        (profile, name, of[name]["numbers"])
        for profile, of in sorted(said.get(MEASURED, {}).items())
        for name in names
        if name in of
    ]
    return hashlib.sha256(repr((names, records, measured)).encode()).hexdigest()[:12]


def _lines(items: Sequence[str]):
    array = tomlkit.array()
    array.extend(items)
    return array.multiline(bool(items))
