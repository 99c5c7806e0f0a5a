"""What changed between two reports: in verdicts, in numbers, and in what the numbers depend on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vqlib.suite import tables
from vqlib.suite.costs import Cost
from vqlib.suite.errors import SuiteError
from vqlib.suite.results import RESULTS
from vqlib.training.files import read_json

NOTICED = 0.10  # a cost that moves by less is no news
NONE = "–"
WORSE, BETTER = "WORSE", "better"


@dataclass(frozen=True)
class Change:
    """One thing that is not the same in both reports, as text."""

    notebook: str
    what: str
    before: str
    after: str
    note: str = ""  #: `WORSE` or `BETTER` of a verdict, the relative change of a number


@dataclass(frozen=True)
class Difference:
    """All that changed; what is the same in both reports is left out."""

    verdicts: Sequence[Change]
    numbers: Sequence[Change]
    context: Sequence[Change]

    @property
    def worse(self) -> bool:
        """Whether something that passed no longer does."""
        return any(change.note == WORSE for change in self.verdicts)

    def __str__(self) -> str:
        parts = {
            "verdicts": self.verdicts,
            "numbers": self.numbers,
            "what they depend on": self.context,
        }
        return "\n\n".join(f"{name}: {_text(changes)}" for name, changes in parts.items())


def between(before: Path, after: Path) -> Difference:
    """Compare two reports, each given as its folder, the folder around it, or its results.json.

    Raises SuiteError if one of them is not there or is no report.
    """
    old, new = _read(before), _read(after)
    verdicts, numbers = [], []
    context = list(_context("", old["provenance"], new["provenance"]))
    for name in dict.fromkeys([*old["notebooks"], *new["notebooks"]]):
        pair = old["notebooks"].get(name), new["notebooks"].get(name)
        if None in pair:
            here = ["not there" if one is None else "there" for one in pair]
            note = "" if pair[0] is None else WORSE
            verdicts.append(Change(name, "the notebook", *here, note))
            continue
        verdicts += _verdicts(name, *pair)
        numbers += _numbers(name, *pair)
        context += _context(name, *(one["parameters"] for one in pair))
    return Difference(verdicts, numbers, context)


def _read(place: Path) -> dict:
    """The content of results.json, with notebooks and gates by name."""
    tried = [place, place / RESULTS, place / "report" / RESULTS]
    file = next((path for path in tried if path.is_file()), None)
    if file is None:
        raise SuiteError(f"{place}: expected a report, found no {RESULTS} in it")
    try:
        content = read_json(file)
        content["notebooks"] = {one["notebook"]: one for one in content["notebooks"]}
        for one in content["notebooks"].values():
            one["gates"] = {gate["record"]: gate for gate in one["gates"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SuiteError(f"{file}: not the results of a report: {error!r}") from None
    return content


def _verdicts(notebook: str, old: dict, new: dict) -> Iterator[Change]:
    """Whether it ran, and each gate."""
    if bool(old["error"]) != bool(new["error"]):
        ran = ["failed" if one["error"] else "ran" for one in (old, new)]
        yield Change(notebook, "the notebook", *ran, WORSE if new["error"] else BETTER)
    for record in dict.fromkeys([*old["gates"], *new["gates"]]):
        gates = [one["gates"].get(record) for one in (old, new)]
        before, after = map(_verdict, gates)
        if before != after:
            yield Change(notebook, record, before, after, _judgement(*gates))


def _judgement(old: dict | None, new: dict | None) -> str:
    """A gate that is new and holds is no progress; one that is gone may hide a step back."""
    was, now = (gate is not None and gate["passed"] is True for gate in (old, new))
    if was and not now:
        return WORSE
    return BETTER if now and not was and old is not None else ""


def _verdict(gate: dict | None) -> str:
    return "no gate" if gate is None else f"{tables.verdict_text(gate['passed'])} ({gate['gate']})"


def _numbers(notebook: str, old: dict, new: dict) -> Iterator[Change]:
    """Each record that differs, then the costs that differ by more than `NOTICED`."""
    for record in dict.fromkeys([*old["records"], *new["records"]]):
        a, b = old["records"].get(record), new["records"].get(record)
        if a != b:
            yield Change(
                notebook, record, tables.exact_text(a), tables.exact_text(b), _relative(a, b)
            )
    for cost in Cost.__dataclass_fields__:
        a, b = old.get(cost), new.get(cost)
        if a and b and abs(b - a) > NOTICED * a:
            yield Change(notebook, cost, f"{a:.3g}", f"{b:.3g}", _relative(a, b))


def _relative(a: float | None, b: float | None) -> str:
    if a is None or b is None or not a or isinstance(a, bool) or isinstance(b, bool):
        return ""
    return tables.Pair("", "", a, b).change


def _context(notebook: str, old: dict, new: dict) -> Iterator[Change]:
    """Provenance or parameters; the date always differs."""
    for name in dict.fromkeys([*old, *new]):
        if name != "Date" and old.get(name) != new.get(name):
            yield Change(notebook, name, str(old.get(name, NONE)), str(new.get(name, NONE)))


def _text(changes: Sequence[Change]) -> str:
    if not changes:
        return "no change"
    rows = [(c.notebook, c.what, c.before, c.after, c.note) for c in changes]
    return "\n" + tables.aligned(rows, ("before", "after", ""))
