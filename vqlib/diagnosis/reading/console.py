"""What a training printed: names and numbers found in its lines, a row for each step."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

import pandas as pd

from vqlib.diagnosis.logs import HistoryError
from vqlib.diagnosis.reading.cells import in_full
from vqlib.diagnosis.reading.lines import (
    COUNTERS,
    NO_COUNTER,
    STRICT,
    VALIDATES,
    of_validation,
    pairs_of,
)
from vqlib.diagnosis.reading.names import TRAIN, USE, Meaning, meaning

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
OF_RANK = re.compile(  # "[rank1]", "local_rank: 1"; torchrun's "[default1]:"
    r"\b(?:(?:(?:local|global)[ _])?rank[ _:=]?\s*|default(?=\d+\]:))(\d+)\b", re.IGNORECASE
)
OF_TASK = re.compile(r"^\s*(\d+): ")  # before a line, by srun -l
OF_MMENGINE = re.compile(r"\bEpoch\((?P<split>train|val|test)\)\s*(\[\d+\])(\[\s*\d+/\d+\])?")
OBJECT = re.compile(
    r"\b(?:tensor|array|np\.\w+|jnp\.\w+)\(\s*([-+\w.]+)\s*(?:,[^()]*(?:\([^()]*\))?)?\)"
)
COUNT = r"\d+(?:\.\d+)?[kKM]"
OF_THOUSANDS = re.compile(  # "step 5k", "iter: 1.5M/2M"
    rf"(?P<name>\b(?i:steps?|iter(?:ation)?s?)[ :=#\[]+)(?P<counts>{COUNT}(?:/{COUNT})?)\b"
)
OF_MANY = re.compile(r" per (?:level|layer|codebook|quantizer|head|book)s?\b", re.IGNORECASE)
CELLS = re.compile(r"\s*[│┃|]([^│┃|]+)[│┃|]([^│┃|]+)[│┃|]\s*")  # "| usage | 0.5 |"
HEADING = re.compile(  # "Validation:", "=== Training ===", "Epoch 3, eval results"
    r"\W*(?:epoch\W*\d+\W+)?(?P<word>[a-z]+)(?:\W+(?:set|split|data|metrics|results?|stats|"
    r"statistics|summary|phase|loop))?\W*",
    re.IGNORECASE,
)
LONGEST = 10_000  # characters of a line; a longer one is data
MOST_LINES = 1_000_000  # of which each takes its time


def read_console(text: str, given: Mapping[str, str] | None = None) -> pd.DataFrame | None:
    """Rows of what the lines of ``text`` say; None if they name the use of no codebook.

    A line that names a step begins a row; lines without one add to it. If a training prints its
    step last, that line ends a row. Without any step, a row ends where a name comes again.
    Columns keep the names as they are printed, with "val/" before those of a line on validation or
    below a heading that says so, and "codebook_0/" before those behind a codebook's number.

    Args:
        given: {quantity: name}, the user's own map: these names are read, whatever they mean.

    Raises:
        HistoryError: a line names the same use twice, and nothing tells the two apart; or there
            are more than `MOST_LINES`.
    """
    if (count := text.count("\n")) > MOST_LINES:
        raise HistoryError(
            f"has {count:,} lines; expected at most {MOST_LINES:,} of what a training printed"
        )
    roles = {name: meaning(target) for target, name in (given or {}).items()}
    lines, notes = _of_one_rank(_plain(text))
    said = _of_one_owner([pairs for pairs in _under_headings(lines, roles) if pairs], roles)
    means = {n: roles.get(n) or meaning(n) for pairs in said for n in pairs if n != NO_COUNTER}
    counters = {n for n, m in means.items() if m.quantity in COUNTERS}
    use = {n for n, m in means.items() if m.quantity in USE or n in roles} - counters
    if not use:
        return None
    rows = [row for row in _rows(said, counters, use) if row.keys() - counters - {NO_COUNTER}]
    while counters and len(rows) > 1 and not rows[0].keys() & counters:
        notes = ("what stands before the first step was left out", *notes)
        rows = rows[1:]
    table = _counted_by_leading_number(pd.DataFrame(rows), counters)
    table.attrs["notes"] = tuple(dict.fromkeys(notes))
    return table


def printed_names(text: str) -> list[str]:
    """Names that stand before numbers in ``text``, in their order."""
    found = (m["name"] for line in _plain(text)[:2000] for m in STRICT.finditer(line))
    return list(dict.fromkeys(found))


# --- rows ---


def _rows(said: list[dict], counters: set[str], use: set[str]) -> list[dict]:
    """The pairs of lines, joined to rows."""
    last = _steps_come_last(said, counters, use)
    rows: list[dict] = []
    for line in said:
        counted = {n: v for n, v in line.items() if n in counters}
        metrics = line.keys() - counters
        if last and (not rows or rows[-1].keys() & counters):
            rows.append({})
        elif not last and _begins(rows, counted, metrics, counters):
            held = rows[-1] if rows and not counted else {}
            rows.append({n: v for n, v in held.items() if n in counters})
        rows[-1] |= line
    return rows


def _steps_come_last(said: list[dict], counters: set[str], use: set[str]) -> bool:
    """Whether the first line is of use and without a step, and the last one the other way."""
    told = [line.keys() for line in said if line.keys() & (counters | use)]
    first, end = told[0], told[-1]
    return not first & counters and bool(end & counters) and not end & use


def _begins(rows: list[dict], counted: dict, metrics: set[str], counters: set[str]) -> bool:
    """Whether a line is of another row than the last one."""
    if not rows:
        return True
    last = rows[-1]
    if any(last.get(name, value) != value for name, value in counted.items()):
        return True
    if counted and not set(counted) <= set(last) and last.keys() - counters:
        return True
    return any(name in last for name in metrics)


def _counted_by_leading_number(table: pd.DataFrame, counters: set[str]) -> pd.DataFrame:
    """A number before the names is the step if nothing else is and it grows from row to row."""
    if NO_COUNTER not in table:
        return table
    numbers = pd.to_numeric(table[NO_COUNTER])
    growing = len(table) > 1 and (numbers.diff().iloc[1:] > 0).all()
    if growing and not counters:
        return table.rename(columns={NO_COUNTER: "step"})
    return table.drop(columns=NO_COUNTER)


# --- lines ---


def _plain(text: str) -> list[str]:
    """The lines without colours; "tensor(0.5)" as 0.5, rows of a drawn table as "name: value"."""
    text = OF_MANY.sub("", OBJECT.sub(r"\1", ANSI.sub("", text)))
    lines = [line for line in re.split(r"[\r\n]+", text) if len(line) <= LONGEST]
    lines = [OF_THOUSANDS.sub(_in_full, OF_MMENGINE.sub(_in_words, line)) for line in lines]
    cells = ((line, CELLS.fullmatch(line)) for line in lines)
    return [f"{c[1].strip()}: {c[2].strip()}" if c else line for line, c in cells]


def _in_words(head: re.Match) -> str:
    """MMEngine's "Epoch(val) [1][20/20]"; its evaluation counts batches of its own."""
    inside = head[3] if head["split"] == "train" and head[3] else ""
    return f"{head['split']} Epoch {head[2]}{inside}"


def _in_full(said: re.Match) -> str:
    counts = (in_full(count) for count in said["counts"].split("/"))
    return said["name"] + "/".join(f"{count:.0f}" for count in counts)


def _of_one_rank(lines: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """The lines of the first rank alone, if several print: each tells of its own batches."""
    for pattern in (OF_RANK, OF_TASK):
        found = [pattern.search(line[:80]) for line in lines]
        ranks = [int(m[1]) for m in found if m]
        if len(set(ranks)) < 2 or (pattern is OF_TASK and not _interleaved(ranks)):
            continue
        first = min(ranks)
        kept = [
            line[: m.start()] + line[m.end() :] if m else line
            for line, m in zip(lines, found, strict=True)
            if m is None or int(m[1]) == first
        ]
        return kept, (f"of the {len(set(ranks))} ranks that print, rank {first} alone is read",)
    return lines, ()


def _interleaved(labels: list[int]) -> bool:
    """Whether labels come again after others: ranks do, steps and epochs do not."""
    back = sum(after < before for before, after in pairwise(labels))
    return back > 1 and len(labels) <= (back + 1) * len(set(labels))


def _of_one_owner(said: list[dict], roles) -> list[dict]:
    """ "Pose codebook usage" is the codebook's usage, if no other word stands there elsewhere.

    Raises HistoryError if one does: then there are several codebooks.
    """
    owned = {n for pairs in said for n in pairs if n != NO_COUNTER and not _means(n, roles)}
    owners: dict[str, list[str]] = {}
    for name in sorted(owned):
        owners.setdefault(name.partition(" ")[2], []).append(name)
    for tail, names in owners.items():
        if len(names) > 1 or any(tail in pairs for pairs in said):
            several = [*names, *([tail] if any(tail in pairs for pairs in said) else [])]
            raise HistoryError(
                f"tells of several codebooks by their names: {', '.join(several[:6])}. Say which "
                f'is which: --map "utilization_0={several[0]}" --map "utilization_1={several[1]}"'
            )
    short = {name: name.partition(" ")[2] for name in owned}
    return [{short.get(n, n): v for n, v in pairs.items()} for pairs in said]


def _means(name: str, roles) -> Meaning | None:
    return roles.get(name) or meaning(name)


def _under_headings(lines: list[str], roles) -> Iterator[dict[str, str]]:
    """The pairs of each line; below a heading on validation, they are of validation.

    That ends with the next heading, or once it has told something, with a step or epoch beyond
    those of the training before it. Where no heading is on training, any other step ends it.
    """
    headings = [_heading(line) for line in lines]
    both = "train" in headings
    under, told = None, False
    counted: dict[str, str] = {}
    trained: dict[str, float] = {}
    for line, heading in zip(lines, headings, strict=True):
        if heading:
            under, told = heading, False
        pairs = pairs_of(line, roles)
        now = {n: v for n, v in pairs.items() if (m := meaning(n)) and m.quantity in COUNTERS}
        beyond = any(_count(v) > trained.get(n, -math.inf) for n, v in now.items())
        another = any(counted.get(n, v) != v for n, v in now.items())
        if not heading and ((told and beyond) or (another and not both)):
            under = None
        if under != "val":
            trained |= {n: _count(v) for n, v in now.items()}
        counted |= now
        told = told or pairs.keys() > now.keys()
        yield of_validation(pairs) if under == "val" else pairs


def _count(value: str) -> float:
    """The number of a step or epoch, "3" or "3/10"."""
    number = re.match(r"\d+(?:\.\d+)?", value)
    return float(number[0]) if number else math.nan


def _heading(line: str) -> str | None:
    """The split that a line of its own announces."""
    found = HEADING.fullmatch(line[:80])
    word = found["word"].lower() if found else ""
    return "val" if word in VALIDATES else "train" if word in TRAIN else None
