"""The commands, ``vqlib NAME``: parsing and printing, nothing else.

Exit status: 0 all well, 1 a gate fails, 2 something could not run, 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

ABOUT = "Watch a VQ codebook collapse, find out why, and bring it back."

app = tyro.extras.SubcommandApp()

Notebooks = Annotated[
    tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NOTEBOOK ...]")
]
Profile = Literal["quick", "full"]


@app.command
def run(
    notebooks: Notebooks = (),
    profile: Profile = "full",
    out: Path = Path("build"),
    jobs: int = 2,
    timeout: float = 1800.0,
) -> int:
    """Execute the notebooks and write the HTML report.

    Args:
        notebooks: Which ones, as 01, a name or a path; all where none is given.
        profile: How much each notebook computes.
        out: Where the executed notebooks and the report go.
        jobs: How many notebooks run at once.
        timeout: Seconds that one notebook may take.
    """
    from vqlib import suite, tables

    chosen = suite.find(notebooks) if notebooks else None
    results = suite.run(chosen, profile, out, jobs=jobs, timeout=timeout)
    _print_failures(results)
    table = tables.before_after_text(results)
    if table:
        print(f"\n{table}")
    print(f"\n{tables.gates_summary(results)}")
    return _close(out, suite.status(results, gates=False))


@app.command
def check(
    notebooks: Notebooks = (),
    profile: Profile = "full",
    out: Path = Path("build/check"),
    jobs: int = 2,
    timeout: float = 1800.0,
) -> int:
    """Execute the notebooks and hold what they record against its gates.

    Exit status 1 where a gate fails, 2 where a notebook could not run.

    Args:
        notebooks: Which ones, as 01, a name or a path; all where none is given.
        profile: How much each notebook computes.
        out: Where the executed notebooks and the report go.
        jobs: How many notebooks run at once.
        timeout: Seconds that one notebook may take.
    """
    from vqlib import suite

    chosen = suite.find(notebooks) if notebooks else None
    return _close(out, suite.check(chosen, profile, out, jobs=jobs, timeout=timeout))


# The next command, `train`, goes here: a function under @app.command whose arguments are the
# fields of vqlib.training.TrainConfig, imported inside it so that --help stays quick.


def _print_failures(results: Sequence) -> None:
    from vqlib import tables

    text = tables.failures_text(results)
    if text:
        print(text, file=sys.stderr)


def _close(out: Path, status: int) -> int:
    """The report's path is the last line, where a person and a script look for it."""
    print(f"\n{out / 'report' / 'index.html'}")
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. Raises SystemExit on --help and on bad flags."""
    from vqlib.strict import SuiteError

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a table's rule must not break an old terminal
    try:
        status = app.cli(prog="vqlib", description=ABOUT, args=argv)
    except SuiteError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; the kernels are stopped, earlier results are untouched", file=sys.stderr
        )
        return 130
    except Exception:  # Python's own exit status 1 would read as a failed gate
        traceback.print_exc()
        return 2
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main())
