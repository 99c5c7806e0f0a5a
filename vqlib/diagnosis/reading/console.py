"""What a training printed: names and numbers found in its lines, a row for each step."""

from __future__ import annotations

import re

import pandas as pd

from vqlib.diagnosis.reading.names import TRAIN, USE, VAL, meaning, suffix_meaning

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
VALUE = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?:\s*(?:/|of)\s*\d+|\s*%)?|nan|inf"
NAME = r"[A-Za-z][\w./\-]*(?:\[\d+\])?(?: [A-Za-z][\w./\-]*){0,4}(?: ?%)?"
# "perplexity: 19.6", "epoch=3", "used codes 500/1024", "Epoch: [3]", '"loss": 0.2'
PAIR = re.compile(
    rf"(?P<name>{NAME})[\"']?(?:\s*(?:[:=]|->)\s*|\s+)"
    rf"(?P<list>\[)?\s*(?P<value>{VALUE})(?![\w.]*[A-Za-z])"
)
LIST = re.compile(rf"(?P<name>{NAME})\s*[:=]?\s*(?P<value>\[[\d.,\seE+\-]+\])")
# "100 iterations", "500/1024 codes used", "12 dead codes"
TURNED = re.compile(
    r"(?P<value>\d+(?:\s*(?:/|of)\s*\d+)?)\s+(?P<name>(?:iterations?|steps?|epochs?)\b"
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
    for pattern in (LIST, PAIR):
        for match in pattern.finditer(line):
            if any(a < match.end() and match.start() < b for a, b in spans):
                continue
            known = suffix_meaning(match["name"].split())
            if known is None:
                continue
            _, tail = known
            value = match["value"].replace(" ", "") if pattern is PAIR else match["value"]
            found.setdefault(tail, value.replace("of", "/"))
            spans.append(match.span())
    for match in TURNED.finditer(line):
        if any(a < match.end() and match.start() < b for a, b in spans):
            continue
        known = suffix_meaning(match["name"].split())
        if known is not None and not any(meaning(n).quantity == known[0].quantity for n in found):
            found[known[1]] = match["value"].replace(" ", "").replace("of", "/")
    counted = {meaning(n).quantity for n in found} & set(COUNTERS)
    bar = OF_EPOCH.search(line) if counted == {"epoch"} else None if counted else BAR.search(line)
    if bar and found:
        found["step"] = bar["done"]
    return found


def _with_split(line: str, metrics: dict[str, str]) -> dict[str, str]:
    words = re.findall(r"[a-z]+", line.lower()[:60])
    if any(w in VAL for w in words) and not any(w in TRAIN for w in words):
        return {n if meaning(n).split else f"val/{n}": v for n, v in metrics.items()}
    return metrics
