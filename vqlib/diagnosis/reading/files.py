"""A file, opened: its kind is told by what stands in it, not by its name."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import select
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from vqlib.diagnosis.logs import ONE_RUN, HistoryError
from vqlib.diagnosis.reading.columns import EXAMPLE, LISTED, MOST_COLUMNS
from vqlib.diagnosis.reading.console import printed_names, read_console
from vqlib.diagnosis.reading.names import meaning
from vqlib.training.runs import EXACT

LARGEST = 2**29  # bytes, unpacked
PATIENCE = 30  # seconds until a pipe says something
LONGEST = 255  # characters of a path that an error names
DEEPEST = 4  # levels of a JSON document at which a history is looked for
SNIFFED = 50  # lines by which a table is told from a log
KINDS = {
    b"PK\x03\x04": "an archive (zip, xlsx, or a torch checkpoint): unpack it",
    b"\x80": "a pickle, which is never opened",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"SQLite format 3": "an SQLite database",
    b"\x93NUMPY": "a NumPy array",
    b"BZh": "compressed by bzip2: unpack it",
    b"\xfd7zXZ": "compressed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it",
    b"RIFF": "a sound or a video",
    b"\x89HDF": "an HDF5 file",
}
RULE = re.compile(r"\s*[|+][\s|+:=-]*-[\s|+:=-]*")  # |---|---|, +----+
DECIMAL_COMMA = re.compile(r"(?<![\d,])(?:0,\d+|\d+,(?:\d{1,2}|\d{4,}))(?![\d,])")
CURVE = {"wall time", "timestamp", "time", "relative time", "index", "step", "epoch", "iteration"}
CURVES = (("/steps", "/values"), ("/x", "/y"))  # of a metric, in JSON
METRIC_NAMES = ("metric", "metricname", "tag", "key", "name", "variable")
METRIC_VALUES = ("value", "metricvalue")
CONTEXTS = ("runcontext", "context", "subset", "split")
NOTEBOOK = re.compile(r'"nbformat"\s*:\s*\d')
TEXTS = (
    (re.compile(r"\s*<(!doctype|html|\?xml|svg)", re.I), "a page of HTML or XML"),
    (re.compile(r"\s*(import|from) \w+|.*\n(def|class) \w+", re.S), "Python source"),
)


def read_file(path: Path, given: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The table that a file holds, as it stands in it; `attrs["notes"]` tells what was left out.

    ``given``, the user's own map, tells which names to look for in what a training printed.

    Raises HistoryError for what cannot be read; nothing in a file is ever executed.
    """
    try:
        with open(path, "rb", opener=_opened) as file:
            content = file.read(LARGEST + 1)  # once: it may be a pipe
    except FileNotFoundError:
        raise HistoryError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        text = str(path)
        named = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
        raise HistoryError(f"{named} cannot be read: {reason}") from None
    return parsed(content, path, given)


def _opened(path: str, flags: int) -> int:
    """As `os.open`, but a pipe into which nobody writes is no wait without end."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    kind = os.fstat(handle).st_mode
    try:
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            raise OSError("it is a device; expected a log")
        if stat.S_ISFIFO(kind):
            if not select.select([handle], [], [], PATIENCE)[0]:
                raise OSError(f"nothing came out of this pipe in {PATIENCE} s")
            os.set_blocking(handle, True)
    except OSError:
        os.close(handle)
        raise
    return handle


def parsed(content: bytes, path: Path, given: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The table in the bytes of a file called ``path``."""
    content = _unpacked(content, path)
    if not content.strip():
        raise HistoryError(f"{path} is empty; expected a log. {EXAMPLE}")
    if content.startswith(b"PAR1"):
        return _parquet(content, path)
    for magic, what in KINDS.items():
        if content.startswith(magic):
            raise HistoryError(f"{path} seems to be {what}; expected a log. {EXAMPLE}")
    text = _text(content, path)
    if NOTEBOOK.search(text[-1000:]):
        raise HistoryError(f"{path} seems to be a Jupyter notebook; expected a log. {EXAMPLE}")
    as_json = (_json_document, _json_lines) if text.lstrip()[:1] in ("{", "[") else (_table,)
    for reader in (*as_json, read_console):
        try:
            table = reader(text, given) if reader is read_console else reader(text)
        except HistoryError as error:
            raise HistoryError(f"{path} {error}") from None
        except (ValueError, RecursionError, OverflowError, csv.Error):
            table = None
        if table is not None and len(table.columns) and reader is not read_console:
            return _wide(_one_curve(table, path))
        if table is not None and not _is_source(text):
            return table
    raise HistoryError(f"{path} {_seems(text)}; expected a log. {EXAMPLE}")


def _unpacked(content: bytes, path: Path) -> bytes:
    if content.startswith(b"\x1f\x8b"):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
                content = packed.read(LARGEST + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise HistoryError(f"{path} is compressed (gzip) and damaged: {error}") from None
    if len(content) > LARGEST:
        raise HistoryError(f"{path} is larger than {LARGEST >> 20} MiB; expected a log")
    return content


def _text(content: bytes, path: Path) -> str:
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    unmarked = not wide and not any(content[1:2000:2]) and any(content[:2000:2])
    coding = "utf-16" if wide else "utf-16-le" if unmarked else "utf-8-sig"
    try:
        text = content.decode(coding)
    except UnicodeDecodeError:
        raise HistoryError(
            f"{path} cannot be read: it is not text (not UTF-8); expected a log. {EXAMPLE}"
        ) from None
    if "\0" in text:
        raise HistoryError(f"{path} holds NUL characters, as no log does; is it damaged?")
    return text


def _parquet(content: bytes, path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(io.BytesIO(content))
    except ImportError:
        raise HistoryError(
            f"{path} is a Parquet file, and pyarrow, which reads it, is not installed: "
            "pip install 'vqlib[logs]'"
        ) from None
    except Exception as error:  # the reader's errors are of many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HistoryError(f"{path} is a Parquet file that cannot be read: {reason}") from None


# --- JSON ---


def _json_document(text: str) -> pd.DataFrame | None:
    return _history_in(json.loads(text), DEEPEST)


def _history_in(value, depth: int) -> pd.DataFrame | None:
    """The first list of records, or record of lists, that names something known."""
    if isinstance(value, list) and value and all(map(_is_point, value)):
        return pd.DataFrame(value, columns=["wall time", "step", "value"])
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return _records(value)
    if not isinstance(value, dict) or depth == 0:
        return None
    flat = _flat(value)
    lists = _points(flat) | {
        k: v for k, v in flat.items() if isinstance(v, list) and not _are_records(v)
    }
    for steps, values in CURVES:
        if curves := [k.removesuffix(values) for k in lists if k.endswith(values)]:
            return _of_curves(curves, lists, steps, values)
    if any(_tells(name) for name in lists):
        return _of_lists(lists)
    if value and all(isinstance(v, dict) for v in value.values()) and _numbered(value):
        return _records(list(value.values()))  # what pandas writes with orient="index"
    for inner in value.values():
        if isinstance(inner, dict | list):
            found = _history_in(inner, depth - 1)
            if found is not None and any(_tells(c) for c in found.columns):
                return found
    return _records([value]) if any(_tells(name) for name in flat) else None


def _are_records(value: list) -> bool:
    return bool(value) and all(isinstance(row, dict) for row in value)


def _is_point(value) -> bool:
    """Whether it is one of TensorBoard's [wall time, step, value]."""
    numbers = isinstance(value, list) and len(value) == 3
    return numbers and all(isinstance(v, int | float) for v in value)


def _points(flat: dict) -> dict[str, list]:
    """Curves told point by point, {"usage": [{"step": 1, "value": 0.5}]}, as steps and values."""
    found = {}
    for name, points in flat.items():
        curve = isinstance(points, list) and _are_records(points) and _tells(name)
        if curve and all({"step", "value"} <= point.keys() for point in points):
            found[f"{name}/steps"] = [point["step"] for point in points]
            found[f"{name}/values"] = [point["value"] for point in points]
    return found


def _numbered(value: dict) -> bool:
    return all(str(key).isdigit() for key in value)


def _of_lists(lists: dict[str, list]) -> pd.DataFrame:
    """Columns of one length: that of the first one that tells the use of a codebook."""
    length = next(len(v) for name, v in lists.items() if _tells(name))
    table = pd.DataFrame({name: v for name, v in lists.items() if len(v) == length})
    left = [name for name, v in lists.items() if len(v) != length and meaning(name) is not None]
    table.attrs["notes"] = tuple(
        f"{name}: left out, its {len(lists[name])} values are not {length}" for name in left
    )
    return table


def _of_curves(names: list[str], lists: dict[str, list], at: str, of: str) -> pd.DataFrame:
    """Each metric with steps of its own: {"usage": {"steps": [...], "values": [...]}}."""
    columns = {}
    for name in names:
        values = lists[f"{name}{of}"]
        steps = lists.get(f"{name}{at}", range(len(values)))
        columns[name] = pd.Series(dict(zip(steps, values, strict=False)), dtype=float)
    return pd.DataFrame(columns).rename_axis("step").reset_index()


def _tells(name: str) -> bool:
    found = meaning(str(name))
    return found is not None and found.quantity not in ("step", "epoch", "split", "lr")


def _records(rows: list[dict]) -> pd.DataFrame:
    flat = [_flat(row) for row in rows]
    if len(set().union(*flat)) > MOST_COLUMNS:
        raise HistoryError(f"has more than {MOST_COLUMNS:,} names; expected a log")
    return pd.DataFrame(flat)


def _flat(record: dict, before: str = "") -> dict:
    """Nested records as one: {"train": {"usage": 1}} -> {"train/usage": 1}."""
    out = {}
    for key, value in record.items():
        if isinstance(value, dict) and before.count("/") < DEEPEST:
            out |= _flat(value, f"{before}{key}/")
        else:
            out[f"{before}{key}"] = value
        if len(out) > MOST_COLUMNS:
            raise ValueError("too many names for a log")
    return out


def _json_lines(text: str) -> pd.DataFrame | None:
    rows, other = [], 0
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            other += 1
    if not rows or other > len(rows):
        return None
    table = _records(rows)
    if other:
        table.attrs["notes"] = (
            f"{other} of {other + len(rows)} lines are no JSON and were left out",
        )
    return table


# --- tables of text ---


def _table(text: str) -> pd.DataFrame | None:
    """Comma, semicolon, tab or space separated values under a header; None: it is no such table."""
    text = _undrawn(re.sub(r"^sep=.\s*\n", "", text))  # Excel's first line
    lines = [line for line in text.splitlines()[: 4 * SNIFFED] if line.strip()][:SNIFFED]
    comments = 0
    while lines and lines[0].lstrip().startswith("#") and len(lines) > 1:
        if _looks_like_header(lines[0].lstrip("# ")):
            break
        lines, comments = lines[1:], comments + 1
    header = lines[0].lstrip("# ") if lines else ""
    if header.count(",") > MOST_COLUMNS:
        raise HistoryError(f"has a header of {header.count(',') + 1:,} columns; expected a log")
    if lines and _is_printed([header, *lines[1:]]):
        return None
    for separator in (",", ";", "\t", "|", r"\s+"):
        if _is_table([header, *lines[1:]], separator):
            return _separated(text, separator, comments)
    return None


def _undrawn(text: str) -> str:
    """Markdown's table without the lines drawn around its cells."""
    lines = text.splitlines()
    if not any(RULE.fullmatch(line) for line in lines[:SNIFFED]):
        return text
    cells = [line.strip().strip("|") for line in lines if not RULE.fullmatch(line)]
    return "\n".join("|".join(c.strip() for c in line.split("|")) for line in cells)


def _cells(line: str, separator: str) -> list[str]:
    if separator == r"\s+":
        return line.split()
    return next(csv.reader([line], delimiter=separator), [])


def _looks_like_header(line: str) -> bool:
    known = [sum(meaning(c) is not None for c in _cells(line, s)) for s in (",", ";", "\t", r"\s+")]
    return any(known[:3]) or known[3] > 1


def _is_table(lines: list[str], separator: str) -> bool:
    """Whether the first line names columns, and the others have as many cells."""
    names = [name.strip() for name in _cells(lines[0], separator)]
    if not all(map(_is_name, names)) or any(map(_is_pair, names)):
        return False
    if len(names) == 1 and separator != ",":
        return False
    known = sum(meaning(name) is not None for name in names)
    if separator == r"\s+" and known < max(2, len(names) / 2):
        return False
    if len(lines) == 1:
        return known > 0
    if len(names) == 1:
        return known > 0
    counts = [len(_cells(line, separator)) for line in lines[1:]]
    fit = sum(abs(count - len(names)) <= 1 for count in counts)
    return fit >= 0.8 * len(counts) or (known > 1 and separator != r"\s+")


def _is_name(cell: str) -> bool:
    """Whether a cell can be a column's name; an index has none."""
    return cell == "" or (bool(re.match(r"[^\W\d]", cell)) and not re.search(r"[|{}=]|: ", cell))


def _is_pair(cell: str) -> bool:
    return bool(re.search(r"[A-Za-z_]\s*[:=]\s*[-+\d.\[]", cell)) or bool(
        re.fullmatch(r"[A-Za-z]+ \d[\d.]*", cell)
    )


def _is_printed(lines: list[str]) -> bool:
    """Whether the first line comes again with other numbers: then it names no columns."""
    first, *others = (re.sub(r"\d+", "0", line) for line in lines)
    return any(o == first and line != lines[0] for o, line in zip(others, lines[1:], strict=True))


def _separated(text: str, separator: str, comments: int) -> pd.DataFrame:
    _refuse_ragged(text, separator, comments)
    kept = [line for line in text.splitlines() if line.strip()][comments:] if comments else None
    text = "\n".join(kept) if kept is not None else text
    text = text.lstrip().removeprefix("#").lstrip(" ") if text.lstrip().startswith("#") else text
    options = {"sep": separator, "low_memory": False, "skipinitialspace": True} | EXACT
    if separator == r"\s+":
        options["engine"] = "c"
    if separator in (";", "\t") and DECIMAL_COMMA.search(text) and not re.search(r"\d\.\d", text):
        options["decimal"] = ","
    table = pd.read_csv(io.StringIO(text), index_col=False, **options)
    whole = [
        c
        for c in table.columns
        if pd.api.types.is_float_dtype(table[c])
        and table[c].isna().any()
        and (table[c].dropna() == 1).all()
    ]
    if whole:  # 1 or 1.0? an empty cell makes both a float
        texts = pd.read_csv(io.StringIO(text), index_col=False, usecols=whole, dtype=str, **options)
        table.attrs["whole"] = [c for c in whole if not texts[c].dropna().str.contains(r"\.").any()]
    return table


def _refuse_ragged(text: str, separator: str, comments: int) -> None:
    """Raises HistoryError for the first line with more cells than the header has names."""
    if separator == r"\s+" or '"' in text:
        return
    lines = [line for line in text.splitlines() if line.strip()][comments:]
    most = lines[0].count(separator) + 1  # a separator may stand at the end
    for number, line in enumerate(lines[1:], start=1):
        if line.count(separator) > most:
            raise HistoryError(
                f"cannot be read as a table: row {number} has {line.count(separator) + 1} cells, "
                f"its header names {most} columns"
            )


def _one_curve(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The export of one curve, as TensorBoard and others have it, names it in the file's name."""
    names = [str(c).strip().lower() for c in table.columns]
    values = [n for n in names if n not in CURVE]
    if values != ["value"] or not any(_says(n, "step") or n == "index" for n in names):
        return table
    stem = path.name.removesuffix(".gz").removesuffix(".csv").removesuffix(".json")
    metric = stem.rpartition("-tag-")[2] or stem
    named = {"value": metric, "index": "step", "wall time": "wall_time"}
    return table.set_axis([named.get(n, n) for n in names], axis=1)


def _says(name: str, quantity: str) -> bool:
    found = meaning(name)
    return found is not None and found.quantity == quantity


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    """A table with a row for each (step, metric), turned into one with a column for each metric.

    Trackers export it so: "metric, step, value". A column of contexts, such as train and
    validate, goes before the metric's name.
    """
    by = {re.sub(r"[^a-z]", "", str(c).lower()): c for c in table.columns}
    metric = next((by[n] for n in METRIC_NAMES if n in by), None)
    value = next((by[n] for n in METRIC_VALUES if n in by), None)
    if metric is None or value is None or not table[metric].map(str).map(_tells).any():
        return table
    names = table[metric].astype(str)
    if context := next((by[n] for n in CONTEXTS if n in by), None):
        said = table[context].map(lambda v: f"{v}/" if isinstance(v, str) and v else "")
        names = said.str.replace("validate/", "val/") + names
    steps = [c for c in table.columns if c not in (metric, value, context)]
    steps = [c for c in steps if _says(str(c), "step") or _says(str(c), "epoch")]
    step = next((c for c in steps if _says(str(c), "step")), next(iter(steps), None))
    key = table[step] if step else names.groupby(names).cumcount() + 1
    long = pd.DataFrame({"step": key, "name": names, "value": table[value]})
    wide = long.dropna(subset=["step"]).groupby(["step", "name"], sort=False)["value"].last()
    wide = wide.unstack("name").reset_index().rename_axis(columns=None)
    several = [c for c in ONE_RUN if c in table and table[c].nunique() > 1]
    return table[[*several]] if several else wide


def _is_source(text: str) -> str | None:
    """What a text is that is written for machines and no log."""
    return next((what for pattern, what in TEXTS if pattern.match(text[:5000])), None)


def _seems(text: str) -> str:
    if what := _is_source(text):
        return f"seems to be {what}"
    if text.lstrip()[:1] in ("{", "["):
        return "seems to be JSON without a history in it"
    first = next(line for line in text.splitlines() if line.strip())
    if re.fullmatch(r"[\d\s.,;eE+-]+", first):
        return "seems to be a table whose columns are not named"
    seems = "cannot be read as a log: it names no use of a codebook that is known"
    if len(names := printed_names(text)) < 2:
        return seems
    shown = ", ".join(name[:40] for name in names[:LISTED]) + ", ..." * (len(names) > LISTED)
    return f'{seems}; it prints {shown}. If one is, say which: --map "used_codes=NAME"'
