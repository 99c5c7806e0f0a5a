"""The names and numbers in one line of what a training printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from vqlib.diagnosis.logs import HistoryError
from vqlib.diagnosis.reading.names import (
    LEVEL_WORDS,
    TRAIN,
    USE,
    VAL,
    Meaning,
    is_of_codes,
    meaning,
    suffix_meaning,
    tells_resets,
)

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
CODES = "codes?|codewords?|entries|embeddings|centroids|(?<=the )codebook"
# "100 iterations", "500/1024 codes used", "12 dead codes out of 64", "45.3% of codes used"
TURNED = re.compile(
    rf"(?<![\d.,])(?P<value>{NUMBER}\s*%(?=\s+of)|(?:{THOUSANDS}|\d+)(?:{OF}\d+)?)\s+"
    r"(?:of (?:the |all )*)?(?P<name>(?:iterations?|steps?|epochs?)\b"
    rf"|(?:\w+ )?(?:{CODES})\b(?:(?: (?:{'|'.join(AUXILIARIES)}))* \w+)?)"
)
# "usage q0=0.9 q1=0.4", "ppl: [vq_0: 90, vq_1: 40]": the first name is of each
SERIES = re.compile(
    rf"(?P<of>{NAME})\s*[: ]\s*[\[({{]?(?P<word>[A-Za-z]{{1,9}})[ _#]?\d+\s*[:=]\s*(?:{VALUE})"
    rf"(?:[\s,;|/]+(?P=word)[ _#]?\d+\s*[:=]\s*(?:{VALUE}))+"
)
ONE_OF_SERIES = re.compile(rf"[A-Za-z]+[ _#]?(?P<level>\d+)\s*[:=]\s*(?P<value>{VALUE})")
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
OF_DEVICE = re.compile(
    r"\b(?:[cg]pu|cuda|device|core|node|worker|disk|top)[ :\-]*\d+\s*$", re.IGNORECASE
)
COUNTERS = ("step", "epoch")
NO_COUNTER = "the number before the names"
VALIDATES = VAL | {"validate", "validating", "evaluate", "evaluating"}
_ASIDE = {
    "harmless": "final epoch step current overall the new global info debug warning and with now",
    "extremes": "max min maximum minimum top best worst std median largest smallest",
}
HARMLESS, EXTREMES = (frozenset(words.split()) for words in _ASIDE.values())


def pairs_of(line: str, roles: Mapping[str, Meaning | None]) -> dict[str, str]:
    """{name: value} of a line, for the names that mean something or are in ``roles``."""
    found: dict[str, str] = {}
    line = SERIES.sub(_each_by_name, line)
    first = len(line)
    for level, start, part in _parts(line):
        said = _found_in(part, roles)
        first = min([first, *(start + place for _, _, place in said)])
        for name, value, _ in _told_apart(said, part):
            if level is not None and _is_use(name) and meaning(name).level is None:
                name = f"codebook_{level}/{name}"
            found.setdefault(name, value)
    found |= _counted_elsewhere(line, found, first)
    return _with_split(line, found)


def _each_by_name(series: re.Match) -> str:
    """ "usage q0=0.9 q1=0.4" as "usage_0: 0.9 ; usage_1: 0.4"."""
    told = suffix_meaning(series["of"].split())
    if not told or not _is_use(told[1]) or series["word"] not in LEVEL_WORDS:
        return series[0]
    members = ONE_OF_SERIES.finditer(series[0], series.start("word") - series.start())
    return " ; ".join(f"{series['of']}_{m['level']}: {m['value']}" for m in members)


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


def _found_in(line: str, roles) -> list[tuple[str, str, int]]:
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
    return of_validation(found)


def of_validation(found: dict[str, str]) -> dict[str, str]:
    """The pairs, with "val/" before the names that tell no split."""
    plain = {n for n in found if n != NO_COUNTER and (m := meaning(n)) and not m.split}
    plain = {n for n in plain if meaning(n).quantity not in COUNTERS}
    return {f"val/{n}" if n in plain else n: v for n, v in found.items()}
