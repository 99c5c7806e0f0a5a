"""The commands, ``vqlib NAME``: parsing and printing, nothing else.

Exit status: 0 all well, 1 a gate fails or a training diverges, 2 something could not run,
130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import tyro

from vqlib import extras
from vqlib.cli.common import complain
from vqlib.quantization.ranges import SettingsError

ABOUT = "Watch a VQ codebook collapse, find out why, and bring it back."
COMMANDS = {  # name: its module here, which is imported only if it is asked for
    "run": "notebooks",
    "check": "notebooks",
    "expect": "notebooks",
    "calibrate": "notebooks",
    "trust": "notebooks",
    "diff": "notebooks",
    "train": "trainings",
    "sweep": "trainings",
    "diagnose": "diagnoses",
    "field": "diagnoses",
    "lessons": "notebooks",
    "selftest": "diagnoses",
}


def _app(asked: str) -> tyro.extras.SubcommandApp:
    """The command that is asked for and its neighbours; all of them, if it is none."""
    chosen = COMMANDS.get(asked)
    app = tyro.extras.SubcommandApp()
    for name, module in COMMANDS.items():
        if chosen in (None, module):
            app.command(getattr(import_module(f"vqlib.cli.{module}"), name))
    return app


def _out_of_memory(error: Exception) -> bool:
    """torch has no error of its own for it on a CPU."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. Raises SystemExit on --help and on bad flags."""
    from vqlib.suite.errors import SuiteError

    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a table's rule must not break an old terminal
    try:
        with extras.named():
            status = _app(next(iter(argv), "")).cli(prog="vqlib", description=ABOUT, args=argv)
        sys.stdout.flush()
    except SuiteError as error:
        for problem in error.problems:
            complain(problem)
        return 2
    except BrokenPipeError:  # whoever read the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (SettingsError, extras.NotInstalled, OSError) as error:
        complain(error)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted: the kernels are stopped, and earlier results are untouched",
            file=sys.stderr,
        )
        return 130
    except Exception as error:  # Python's own exit status 1 would read as a failed gate
        if _out_of_memory(error):
            complain("out of memory; a smaller batch, codebook or model needs less")
        else:
            traceback.print_exc()
        return 2
    return int(status or 0)
