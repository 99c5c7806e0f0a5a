"""The HTML report of a run: a front page, and a page for each executed notebook.

Every file is self-contained: pictures and styles are inside it, and its content security policy
keeps a browser from fetching anything.
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vqlib.suite import growth, junit, pages, tables, versions
from vqlib.suite.kernels import cores
from vqlib.suite.results import RESULTS
from vqlib.training import places
from vqlib.training.files import read_json

if TYPE_CHECKING:
    from vqlib.suite.results import Result
    from vqlib.suite.trust import Trust

TEMPLATES = Path(__file__).parent / "templates"
HEADING = "Codebook collapse, before and after"
Cells = dict[str, dict[str, str]]  # {notebook: {record: HTML id of the cell that made it}}


def write(
    results: Sequence[Result],
    folder: Path,
    *,
    profile: str,
    first: bool | None = None,
    sources: Sequence[Path] | None = None,
    coming: Sequence[str] = (),
    trust: Trust | None = None,
    trust_is_old: bool = False,
) -> Path:
    """Write the report of `results` into `folder`, which must not exist; returns `folder`.

    `first`: whether the cache of runs was empty before, if that is known. `sources`: the notebooks,
    if they are not the suite's. `coming`: those that are still to be executed. `trust`: what the
    gates do on fresh seeds and with faults, if that was measured; `trust_is_old`: of gates that
    have changed since. Beside the pages stand ``results.json``, the same for programs, and
    ``junit.xml``, for the pages of a build server.
    """
    folder.mkdir(parents=True)
    (folder / "notebooks").mkdir()
    notebooks = {r.notebook: nbformat.read(r.executed, as_version=4) for r in results}
    titles = {name: pages.title(notebook, name) for name, notebook in notebooks.items()}
    templates = environment()
    cells = {name: pages.recording_cells(notebook) for name, notebook in notebooks.items()}
    about = provenance(profile, first, sources)
    for i, result in enumerate(results):
        notebook = notebooks[result.notebook]
        text = templates.get_template("notebook.html.j2").render(
            result=result,
            titles=titles,
            before=results[i - 1] if i else None,
            after=results[i + 1] if i + 1 < len(results) else None,
            failed_cell=pages.failed_cell(notebook),
            body=Markup(pages.body(notebook, str(result.executed.parent), notebooks)),
        )
        _save(folder / "notebooks" / f"{result.notebook}.html", text)
    index = templates.get_template("index.html.j2").render(
        heading=HEADING if sources is None else _heading(titles),
        results=results,
        coming=coming,
        trust=trust,
        trust_is_old=trust_is_old,
        foreign=sources is not None,
        failures=[result for result in results if result.error],
        verdicts=_verdicts(results),
        pairs=tables.pairs(results),
        cells=cells,
        figure=figure(notebooks),
        growth=growth.read() if sources is None else None,
        titles=titles,
        provenance=about,
    )
    _save(folder / "index.html", index)
    _save(folder / RESULTS, _json(results, about, cells, coming))
    junit.write(results, folder / "junit.xml")
    return folder


def passed(folder: Path) -> bool:
    """Whether the report in `folder` is whole, and has no failed notebook and no failed gate."""
    return _said(folder).get("passed") is True


def whole(folder: Path) -> bool:
    """Whether the report in `folder` awaited no notebook when it was written."""
    return not _said(folder).get("coming")


def _said(folder: Path) -> dict:
    try:
        return read_json(folder / RESULTS)
    except (OSError, ValueError):
        return {}


def provenance(
    profile: str, first: bool | None = None, sources: Sequence[Path] | None = None
) -> dict[str, str]:
    """What a number in the report depends on, as label -> text.

    `sources`: notebooks that are not the suite's; then their repository's commit counts, and the
    packages that they import.
    """
    now = datetime.datetime.now(datetime.UTC)
    about = {
        "Profile": profile,
        "Date": now.strftime("%Y-%m-%d %H:%M UTC"),
        "Commit": _commit(_checkout() if sources is None else sources[0].resolve().parent),
        "vqlib": versions.installed("vqlib"),
        **(versions.imported(sources) if sources else {"PyTorch": versions.installed("torch")}),
        "Python": platform.python_version(),
        "System": f"{platform.system()} {platform.machine()}",
        "Cores": str(cores()),
        "Runs kept before": {True: "none", False: "some", None: ""}[first],
    }
    return {label: text for label, text in about.items() if text}


def duration(seconds: float) -> str:
    """``7.3 s``, ``1 min 20 s``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def megabytes(size: float | None) -> str:
    """``312 MB``, ``0.25 MB``; a dash if it was not measured."""
    if size is None:
        return "–"
    return f"{size:,.0f} MB".replace(",", "\u2009") if size >= 10 else f"{size:.2g} MB"


def breakable(name: str) -> Markup:
    """A long name that a narrow column may break after an underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {f.__name__: f for f in (duration, megabytes, breakable)}
    environment.globals |= {
        "css": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "code_css": Markup(pages.code_css()),
        "gate_text": tables.gate_text,
        "is_percent": tables.is_percent,
        "value_text": tables.value_text,
        "verdict_text": tables.verdict_text,
    }
    return environment


def _verdicts(results: Sequence[Result]) -> list[tuple[Result, object]]:
    """Every gate with its notebook; those that failed first, then those that could not run."""
    rank = {False: 0, None: 1, True: 2}
    every = [(result, verdict) for result in results for verdict in result.gates]
    return sorted(every, key=lambda row: rank[row[1].passed])


def figure(notebooks: dict) -> dict[str, str] | None:
    for name, notebook in notebooks.items():
        found = pages.headline(notebook)
        if found:
            return {"notebook": name, "png": found[0], "alt": found[1]}
    return None


def _json(results: Sequence[Result], about: dict[str, str], cells: Cells, coming) -> str:
    def one(result: Result) -> dict:
        gates = [
            {
                "record": v.record,
                "kind": v.kind,
                "value": v.value,
                "gate": str(v.gate),
                "passed": v.passed,
                "claim": v.claim,
                "cell": cells[result.notebook].get(v.record, ""),
            }
            for v in result.gates
        ]
        return {
            "notebook": result.notebook,
            "parameters": result.parameters,
            "records": result.records,
            "gates": gates,
            **{name: cost and round(cost, 3) for name, cost in result.cost.named().items()},
            "error": result.error,
        }

    good = all(result.error is None and all(v.passed for v in result.gates) for result in results)
    content = {
        "passed": good and not coming,
        "coming": list(coming),
        "provenance": about,
        "notebooks": [one(r) for r in results],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _heading(titles: dict[str, str]) -> str:
    return next(iter(titles.values())) if len(titles) == 1 else f"{len(titles)} notebooks"


def _checkout() -> Path | None:
    """The checkout that vqlib runs from; an environment inside another repository is none."""
    return places.PARENT if (places.PARENT / ".git").exists() else None


def _commit(folder: Path | None) -> str:
    """The commit of the repository that `folder` lies in; empty if there is none."""
    if folder is None:
        return ""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + (" with local changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _save(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="replace")
