"""What a training printed: names and numbers found in its lines, a row for each step."""

from __future__ import annotations

import re

import pandas as pd

from vqlib.diagnosis.reading.names import TRAIN, USE, VAL, meaning, suffix_meaning

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
OF = r"\s*(?:/|(?:out )?of)\s*"
VALUE = rf"{NUMBER}(?:{OF}\d+|\s*%)?|nan|inf"
NAME = r"[A-Za-z][\w./\-]*(?:\[\d+\])?(?: [A-Za-z][\w./\-]*){0,4}(?: ?%)?"
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
# "100 iterations", "500/1024 codes used", "12 dead codes out of 64"
TURNED = re.compile(
    rf"(?P<value>\d+(?:{OF}\d+)?)\s+(?P<name>(?:iterations?|steps?|epochs?)\b"
    r"|(?:\w+ )?codes?(?: \w+)?)"
)
OF_EPOCH = re.compile(r"\[\s*(?P<done>\d+)/\d+\]")  # "Epoch: [3]  [ 20/5005]"
BAR = re.compile(r"(?P<done>\d+)/\d+ \[\d+:\d+")  # a progress bar's counter
COUNTERS = ("step", "epoch")


def read_console(text: str) -> pd.DataFrame | None:
    """Rows of what the lines of ``text`` say; None if they name the use of no codebook.

    A line that names a step begins a row; lines without one add to it. Without any step, a row
    ends where a name comes again. Columns keep the names as they are printed, with "val/" before
    those of a line on validation.
    """
    rows: list[dict] = []
    for line in re.split(r"[\r\n]+", ANSI.sub("", text)):
        found = _pairs(line)
        if not found:
            continue
        counted = {name for name in found if meaning(name).quantity in COUNTERS}
        metrics = _with_split(line, {n: v for n, v in found.items() if n not in counted})
        counters = {n: found[n] for n in counted}
        if _begins(rows, counters, metrics):
            held = rows[-1] if rows and not counters else {}
            rows.append({n: v for n, v in held.items() if _is_counter(n)})
        rows[-1] |= counters | metrics
    rows = [row for row in rows if any(not _is_counter(name) for name in row)]
    told = {meaning(name).quantity for row in rows for name in row}
    return pd.DataFrame(rows) if told & set(USE) else None


def _begins(rows: list[dict], counters: dict, metrics: dict) -> bool:
    """Whether a line is of another row than the last one."""
    if not rows:
        return True
    last = rows[-1]
    if any(last.get(name, value) != value for name, value in counters.items()):
        return True
    if counters and not set(counters) <= set(last) and any(not _is_counter(n) for n in last):
        return True
    return any(name in last for name in metrics)


def _is_counter(name: str) -> bool:
    return meaning(name).quantity in COUNTERS


def _pairs(line: str) -> dict[str, str]:
    """{name: value} of a line, for the names that mean something."""
    found: dict[str, str] = {}
    spans: list[tuple[int, int]] = []
    for pattern in (TURNED, LIST, PAIR):
        for match in pattern.finditer(line):
            if any(a < match.end() and match.start() < b for a, b in spans):
                continue
            words = match["name"].split()
            known = suffix_meaning(words) or (pattern is TURNED and suffix_meaning(words[:-1]))
            if not known or (pattern is TURNED and _is_counted(line, match, spans)):
                continue
            found.setdefault(known[1], _value(match["value"]))
            spans.append(match.span())
    return found | _counted_elsewhere(line, found)


def _value(text: str) -> str:
    if text.startswith("["):
        return text
    if re.fullmatch(rf"{NUMBER}(?: {NUMBER})+", text):
        return f"[{text}]"
    return re.sub(OF, "/", text).replace(" ", "")


def _is_counted(line: str, match: re.Match, spans: list[tuple[int, int]]) -> bool:
    """Whether a number that a name follows belongs to the name before it, or to prose.

    In "step 2000 codes used: 5" it does; "every 1000 steps" tells no step.
    """
    before = re.search(r"([A-Za-z_]\w*)[\s:=#\[]*$", line[: match.start()])
    taken = before and any(a <= before.start() < b for a, b in spans)
    if before and not taken and (m := meaning(before[1])) and m.quantity in COUNTERS:
        return True
    counter = meaning(match["name"].split()[0])
    alone = line.strip() == match[0].strip() or bool(re.search(r"\d", line[match.end() :]))
    return counter is not None and counter.quantity in COUNTERS and not alone


def _counted_elsewhere(line: str, found: dict[str, str]) -> dict[str, str]:
    """The step that a progress bar, or the counter behind an epoch, shows."""
    counted = {meaning(n).quantity for n in found} & set(COUNTERS)
    if not found or "step" in counted:
        return {}
    bar = (counted and OF_EPOCH.search(line)) or BAR.search(line)
    return {"step": bar["done"]} if bar else {}


def _with_split(line: str, metrics: dict[str, str]) -> dict[str, str]:
    words = re.findall(r"[a-z]+", line.lower()[:60])
    if any(w in VAL for w in words) and not any(w in TRAIN for w in words):
        return {n if meaning(n).split else f"val/{n}": v for n, v in metrics.items()}
    return metrics
