"""What a training printed: names and numbers found in its lines, a row for each step."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

import pandas as pd

from vqlib.diagnosis.logs import HistoryError
from vqlib.diagnosis.reading.names import (
    TRAIN,
    USE,
    VAL,
    Meaning,
    is_of_codes,
    meaning,
    suffix_meaning,
    tells_resets,
)

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
THOUSANDS = r"[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)"
NUMBER = rf"[-+]?(?:{THOUSANDS}|\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
OF = r"\s*(?:/|(?:out )?of)\s*"
VALUE = rf"{NUMBER}(?:{OF}\d+|\s*%)?|nan|inf"
NAME = r"(?<!\w)_*[A-Za-z][\w./\-]*(?:\[\d+\])?(?: [A-Za-z][\w./\-]*){0,4}(?: ?%)?"
# "perplexity: 19.6", "epoch=3", "used codes 500/1024", "Epoch: [3]", '"loss": "0.2"'
PAIR = re.compile(
    rf"(?P<name>{NAME})[\"']?(?:\s*(?:[:=]|->)\s*|\s+)"
    rf"[\[\"']?\s*(?P<value>{VALUE})(?![\w.]*[A-Za-z])"
)
# "usage: [0.9, 0.4]", "usage: 0.9 0.4"
LIST = re.compile(
    rf"(?P<name>{NAME})\s*[:=]?\s*"
    rf"(?P<value>\[[\d.,\seE+\-]+\]|(?<=[:=] ){NUMBER}(?: {NUMBER})+)(?!\w)"
)
AUXILIARIES = ("were", "was", "are", "is", "got", "have", "been")
# "100 iterations", "500/1024 codes used", "12 dead codes out of 64", "45.3% of codes used"
TURNED = re.compile(
    rf"(?<![\d.,])(?P<value>{NUMBER}\s*%(?=\s+of)|(?:{THOUSANDS}|\d+)(?:{OF}\d+)?)\s+"
    r"(?:of (?:the |all )*)?(?P<name>(?:iterations?|steps?|epochs?)\b"
    rf"|(?:\w+ )?codes?(?:(?: (?:{'|'.join(AUXILIARIES)}))* \w+)?)"
)
MOVED = re.compile(r"([A-Za-z][A-Za-z-]*)\s+(?:of\s+)?$")  # "replaced" before "20 dead codes"
NAMED = re.compile(rf"(?P<name>{NAME})\s*[:=]\s*$")  # "reset codes: " before "20 used codes"
# "uc=1900" of names that mean nothing to us
STRICT = re.compile(rf"(?P<name>{NAME})\s*[:=]\s*{NUMBER}")
OF_EPOCH = re.compile(r"\[\s*(?P<done>\d+)/\d+\]")  # "Epoch: [3]  [ 20/5005]"
BAR = re.compile(r"(?<!\d)(?P<done>\d+)/\d+ \[\d+:\d+")  # a progress bar's counter
# "[100] usage=0.5", "100 train loss: 0.1 usage: 0.5"
LEADING = re.compile(r"(?:^|\s)\[?(?P<done>\d+)\]?[:,]?\s+$")
AT_START = re.compile(r"\s*\[?(?P<done>\d+)\]?[:,]?\s+(?=[A-Za-z])")
# "Codebook 0: usage 0.5", "h0:util=0.5": what follows is of one codebook
LABEL = re.compile(
    r"(?<![\w./])(?:(?:codebook|quantizer|level|layer|book|head|r?vq)[ _#\-]*|[qh](?=\d))"
    r"\[?(?P<level>\d{1,3})\]?(?:\s*[:=|,\-)]+\s*(?=[A-Za-z]|\d+/\d)|\s+(?=[A-Za-z]))",
    re.IGNORECASE,
)
OF_RANK = re.compile(  # "[rank1]", "local_rank: 1"; torchrun's "[default1]:"
    r"\b(?:(?:(?:local|global)[ _])?rank[ _:=]?\s*|default(?=\d+\]:))(\d+)\b", re.IGNORECASE
)
OF_TASK = re.compile(r"^\s*(\d+): ")  # before a line, by srun -l
OF_MMENGINE = re.compile(r"\bEpoch\((?P<split>train|val|test)\)\s*(\[\d+\])(\[\s*\d+/\d+\])?")
OBJECT = re.compile(
    r"\b(?:tensor|array|np\.\w+|jnp\.\w+)\(\s*([-+\w.]+)\s*(?:,[^()]*(?:\([^()]*\))?)?\)"
)
OF_MANY = re.compile(r" per (?:level|layer|codebook|quantizer|head|book)s?\b", re.IGNORECASE)
OF_DEVICE = re.compile(
    r"\b(?:[cg]pu|cuda|device|core|node|worker|disk|top)[ :\-]*\d+\s*$", re.IGNORECASE
)
CELLS = re.compile(r"\s*[│┃|]([^│┃|]+)[│┃|]([^│┃|]+)[│┃|]\s*")  # "| usage | 0.5 |"
HEADING = re.compile(  # "Validation:", "=== Training ===", "Epoch 3, eval results"
    r"\W*(?:epoch\W*\d+\W+)?(?P<word>[a-z]+)(?:\W+(?:set|split|data|metrics|results?|stats|"
    r"statistics|summary|phase|loop))?\W*",
    re.IGNORECASE,
)
LONGEST = 10_000  # characters of a line; a longer one is data
MOST_LINES = 1_000_000  # of which each takes its time
COUNTERS = ("step", "epoch")
NO_COUNTER = "the number before the names"
VALIDATES = VAL | {"validate", "validating", "evaluate", "evaluating"}
HARMLESS = frozenset(
    {
        "final",
        "epoch",
        "step",
        "current",
        "overall",
        "the",
        "new",
        "global",
        "info",
        "debug",
        "warning",
        "and",
        "with",
        "now",
    }
)
EXTREMES = frozenset(
    {
        "max",
        "min",
        "maximum",
        "minimum",
        "top",
        "best",
        "worst",
        "std",
        "median",
        "largest",
        "smallest",
    }
)


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
    lines = [OF_MMENGINE.sub(_in_words, line) for line in lines]
    cells = ((line, CELLS.fullmatch(line)) for line in lines)
    return [f"{c[1].strip()}: {c[2].strip()}" if c else line for line, c in cells]


def _in_words(head: re.Match) -> str:
    """MMEngine's "Epoch(val) [1][20/20]"; its evaluation counts batches of its own."""
    inside = head[3] if head["split"] == "train" and head[3] else ""
    return f"{head['split']} Epoch {head[2]}{inside}"


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


def _pairs(line: str, roles: Mapping[str, Meaning | None]) -> dict[str, str]:
    """{name: value} of a line, for the names that mean something or are in ``roles``."""
    found: dict[str, str] = {}
    first = len(line)
    for level, start, part in _parts(line):
        said = _pairs_of(part, roles)
        first = min([first, *(start + place for _, _, place in said)])
        for name, value, _ in _told_apart(said, part):
            if level is not None and _is_use(name) and meaning(name).level is None:
                name = f"codebook_{level}/{name}"
            found.setdefault(name, value)
    found |= _counted_elsewhere(line, found, first)
    return _with_split(line, found)


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
        pairs = _pairs(line, roles)
        now = {n: v for n, v in pairs.items() if (m := meaning(n)) and m.quantity in COUNTERS}
        beyond = any(_count(v) > trained.get(n, -math.inf) for n, v in now.items())
        another = any(counted.get(n, v) != v for n, v in now.items())
        if not heading and ((told and beyond) or (another and not both)):
            under = None
        if under != "val":
            trained |= {n: _count(v) for n, v in now.items()}
        counted |= now
        told = told or pairs.keys() > now.keys()
        yield _of_validation(pairs) if under == "val" else pairs


def _count(value: str) -> float:
    """The number of a step or epoch, "3" or "3/10"."""
    number = re.match(r"\d+(?:\.\d+)?", value)
    return float(number[0]) if number else math.nan


def _heading(line: str) -> str | None:
    """The split that a line of its own announces."""
    found = HEADING.fullmatch(line[:80])
    word = found["word"].lower() if found else ""
    return "val" if word in VALIDATES else "train" if word in TRAIN else None


def _is_use(name: str) -> bool:
    said = meaning(name)
    return said is not None and said.quantity in (*USE, "resets")


def _parts(line: str) -> Iterator[tuple[str | None, int, str]]:
    """(number of a codebook or None, where it starts, the part of the line that is of it)."""
    labels = list(LABEL.finditer(line))
    yield None, 0, line[: labels[0].start()] if labels else line
    ends = [*(label.start() for label in labels[1:]), len(line)]
    for label, end in zip(labels, ends, strict=False):
        yield label["level"], label.end(), line[label.end() : end]


def _pairs_of(line: str, roles) -> list[tuple[str, str, int]]:
    """(name, value, place) of each pair, in the line's order."""
    found: list[tuple[str, str, int]] = []
    spans: list[tuple[int, int]] = []
    for pattern in (TURNED, LIST, PAIR):
        for match in pattern.finditer(_less(line, spans)):
            turned = pattern is TURNED
            words = match["name"].split()
            name = _turned(line, match, roles) if turned else _name(words, False, roles)
            if name is None or (OF_DEVICE.search(line[: match.start()]) and not is_of_codes(name)):
                continue
            if turned and _is_told_before(line, match, spans):
                continue
            found.append((name, _value(match["value"]), match.start()))
            spans.append(match.span())
    return sorted(found, key=lambda pair: pair[2])


def _less(line: str, spans: list[tuple[int, int]]) -> str:
    """The line without what was read of it, each character in its place."""
    for start, end in spans:
        line = f"{line[:start]}{';' * (end - start)}{line[end:]}"
    return line


def _turned(line: str, match: re.Match, roles) -> str | None:
    """What the name behind a number means; a verb before it may make the codes resets."""
    words = [w for w in match["name"].split() if w not in AUXILIARIES]
    verb = MOVED.search(line[: match.start()])
    if verb and tells_resets(verb[1]) and is_of_codes(" ".join(words)):
        return "resets"
    return _name(words, True, roles)


def _name(words: list[str], turned: bool, roles) -> str | None:
    """The end of ``words`` that means something, with its owner if it has one."""
    tails = (" ".join(words[start:]) for start in range(len(words)))
    if chosen := next((tail for tail in tails if tail in roles), None):
        return chosen
    known = suffix_meaning(words) or (turned and suffix_meaning(words[:-1]))
    if not known:
        return None
    said, tail = known
    if said.quantity in COUNTERS:
        kept = [w for w in tail.split() if w.lower().strip(".:") not in TRAIN | VAL | HARMLESS]
        return " ".join(kept) or tail  # "INFO Train. Iter" and "Iter" are one counter
    owner = words[-len(tail.split()) - 1] if not turned and len(words) > len(tail.split()) else ""
    if said.quantity not in USE or not owner or owner.lower() in HARMLESS:
        return tail
    if owner.lower() in EXTREMES or not is_of_codes(tail):
        return None  # "memory usage", "max codebook usage"
    return f"{owner} {tail}"


def _told_apart(said: list[tuple[str, str, int]], line: str) -> list[tuple[str, str, int]]:
    """Names that come again in a line, told apart by the split that stands before each.

    Raises HistoryError if a use of codes is told twice and no split does it.
    """
    values: dict[str, set[str]] = {}
    for name, value, _ in said:
        values.setdefault(name, set()).add(value)
    out = []
    for name, value, place in said:
        if len(values[name]) > 1 and _is_use(name):
            split = _split_before(line, place)
            if split is None or f"{split}/{name}" in {n for n, *_ in out}:
                raise HistoryError(
                    f"tells `{name}` {len(values[name])} times in one line "
                    f"({', '.join(sorted(values[name]))[:60]}), and not of which codebook or split"
                )
            name = f"{split}/{name}"
        out.append((name, value, place))
    return out


def _split_before(line: str, place: int) -> str | None:
    """The split whose word stands last before ``place``, or begins the name there."""
    words = re.findall(r"(?<![\w/.])[a-z]+(?![\w/.])", line[:place].lower())
    said = [w for w in words if w in TRAIN | VAL]
    return None if not said else "val" if said[-1] in VAL else "train"


def _value(text: str) -> str:
    if text.startswith("["):
        return text
    if re.fullmatch(rf"{NUMBER}(?: {NUMBER})+", text):
        return f"[{text}]"
    return re.sub(OF, "/", text).replace(" ", "").replace(",", "")


def _is_told_before(line: str, match: re.Match, spans: list[tuple[int, int]]) -> bool:
    """Whether a number that a name follows belongs to the name before it, or to prose.

    In "step 2000 codes used: 5" and "reset codes: 20 used codes: 97" it does; "every 1000 steps"
    tells no step.
    """
    label = NAMED.search(line[: match.start()])
    known = label and suffix_meaning(label["name"].split())
    if known and known[0].quantity in (*USE, "resets"):
        return True
    before = re.search(r"([A-Za-z_]\w*)[\s:=#\[]*$", line[: match.start()])
    taken = before and any(a <= before.start() < b for a, b in spans)
    if before and not taken and (m := meaning(before[1])) and m.quantity in COUNTERS:
        return True
    counter = meaning(match["name"].split()[0])
    alone = line.strip() == match[0].strip() or bool(re.search(r"\d", line[match.end() :]))
    return counter is not None and counter.quantity in COUNTERS and not alone


def _counted_elsewhere(line: str, found: dict[str, str], first: int) -> dict[str, str]:
    """The step that a progress bar, the counter behind an epoch, or a number in front shows."""
    counted = {m.quantity for n in found if (m := meaning(n))} & set(COUNTERS)
    if not found or "step" in counted:
        return {}
    if bar := (counted and OF_EPOCH.search(line)) or BAR.search(line):
        return {"step": bar["done"]}
    number = LEADING.search(line[:first]) or AT_START.match(line)
    return {NO_COUNTER: number["done"]} if number and not counted else {}


def _with_split(line: str, found: dict[str, str]) -> dict[str, str]:
    words = re.findall(r"[a-z]+", line.lower()[:60])
    if not any(w in VALIDATES for w in words) or any(w in TRAIN for w in words):
        return found
    return _of_validation(found)


def _of_validation(found: dict[str, str]) -> dict[str, str]:
    """The pairs, with "val/" before the names that tell no split."""
    plain = {n for n in found if n != NO_COUNTER and (m := meaning(n)) and not m.split}
    plain = {n for n in plain if meaning(n).quantity not in COUNTERS}
    return {f"val/{n}" if n in plain else n: v for n, v in found.items()}
