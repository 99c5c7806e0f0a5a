"""Bands from measurements: what each recorded number does on fresh seeds and kinds of machine.

It goes to the end of expected.toml, where a person reviews it as a diff; everything else in the
file, comments too, stays as it is.
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import tomlkit

from vqlib.quantization.ranges import whole
from vqlib.suite import repeats, tables, versions
from vqlib.suite.gatefile import MEASURED
from vqlib.suite.gates import EFFECT, Band
from vqlib.suite.lineup import Lineup
from vqlib.suite.repeats import Outcome

NOTE = (
    "What `vqlib calibrate` measured. A gate that says band takes its values from here; the other",
    "numbers are for reading.",
)


@dataclass(frozen=True)
class Calibration:
    """What was executed, and what it says of each notebook of which nothing failed."""

    suite: Lineup
    seeds: range
    kinds: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> list[Outcome]:
        """Those that could not run."""
        return [outcome for outcome in self.outcomes if outcome.error]

    def numbers(self) -> dict[str, dict[str, Band]]:
        """{notebook: {record: its band}}."""
        broken = {outcome.repeat.notebook for outcome in self.failed}
        return {
            name: bands([o for o in self.outcomes if o.repeat.notebook == name])
            for name in self.suite.selected
            if name not in broken
        }

    def written(self, text: str) -> str:
        """The text of expected.toml with these numbers in it, in the place of earlier ones."""
        numbers = self.numbers()
        if not numbers:
            return text
        document = tomlkit.parse(text)
        if MEASURED not in document:
            document.add(tomlkit.nl())
            for line in NOTE:
                document.add(tomlkit.comment(line))
            document.add(MEASURED, tomlkit.table(is_super_table=True))
        if self.suite.profile not in document[MEASURED]:
            document[MEASURED].add(self.suite.profile, tomlkit.table(is_super_table=True))
        for name, found in numbers.items():
            document[MEASURED][self.suite.profile][name] = self._table(name, found)
        return tomlkit.dumps(document)

    def _table(self, notebook: str, found: Mapping[str, Band]):
        table = tomlkit.table()
        for key, value in self.about(notebook).items():
            table.add(key, value)
        numbers = tomlkit.table()
        for record, band in found.items():
            rounded = {key: float(f"{getattr(band, key):.6g}") for key in ("mean", "sd")}
            numbers.add(tomlkit.key(record), _inline({**rounded, "n": band.n}))
        table.add("numbers", numbers)
        return table

    def about(self, notebook: str) -> dict[str, object]:
        """What its numbers depend on."""
        return {
            "date": datetime.date.today(),
            "seeds": f"{self.seeds.start} to {self.seeds.stop - 1}",
            "repeats": len({outcome.repeat.seed for outcome in self.outcomes}),
            "kinds": list(self.kinds),
            "packages": _inline(versions.depended_on(self.suite.sources[notebook])),
        }

    def text(self) -> str:
        """A table for a terminal: of each gate its kind, what was measured, and where it held."""
        rows, still = [], []
        for name, found in self.numbers().items():
            gates = self.suite.expected.records.get(name, {})
            for record, band in found.items():
                gate = gates.get(record, {}).get(self.suite.profile)
                if gate is None:
                    continue
                values = [o.records[record] for o in self.outcomes if o.repeat.notebook == name]
                held = sum(map(bool, map(gate.passes, values)))
                row = [tables.value_text(record, v) for v in (band.mean, min(values), max(values))]
                allowed = tables.gate_text(record, gate)
                rows.append((name, record, gate.kind, *row, allowed, _held(gate, held, values)))
                if gate.calibrated and band.sd == 0:
                    still.append(f"{name}: {record} did not move; is it an invariant?")
        columns = ("mean", "least", "most", "gate", "held")
        table = tables.aligned(rows, columns) if rows else "no gate in this profile"
        return "\n".join([table, *still])


def measure(
    suite: Lineup, out: Path, kinds: Sequence[str], first: int, times: int, **options
) -> Calibration:
    """Execute `suite` on `times` fresh sets of seeds and on each kind of machine.

    `options` are those of `repeats.execute`. Raises as `repeats.plan` and that do.
    """
    whole("seeds", times, 2)  # one shows no spread
    asked = repeats.plan(suite, kinds, first, times)
    outcomes = repeats.execute(suite, asked, out, **options)
    names = tuple(dict.fromkeys(str(repeat.kind) for repeat in asked))
    return Calibration(suite, repeats.seeds_of(suite, first, times), names, tuple(outcomes))


def bands(outcomes: Sequence[Outcome]) -> dict[str, Band]:
    """{record: its band} over executions of one notebook; of numbers that each of them made."""
    number = len({outcome.repeat.seed for outcome in outcomes})
    if number < 2:
        return {}
    found = {}
    for record in outcomes[0].records:
        values = [outcome.records.get(record) for outcome in outcomes]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            found[record] = Band(mean(values), stdev(values), len(values), number)
    return found


def _inline(values: Mapping[str, object]):
    table = tomlkit.inline_table()
    table.update(values)
    return table


def difference(before: str, after: str, name: str) -> str:
    """What changes in the file, as a diff; empty if nothing does."""
    lines = (text.splitlines(keepends=True) for text in (before, after))
    return "".join(difflib.unified_diff(*lines, f"{name} (now)", f"{name} (measured)", n=1))


def _held(gate, held: int, values: Sequence[float]) -> str:
    """An effect that does not hold on every seed is undecided, whatever its mean."""
    if gate.calibrated and gate.band is None:
        return "not measured"
    text = f"{held} of {len(values)}"
    return f"{text}, undecided" if gate.kind == EFFECT and held < len(values) else text
