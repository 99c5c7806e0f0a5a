"""What the strict modules share: one error that lists every problem, and near names."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path


class SuiteError(ValueError):
    """The suite cannot run as it is written. ``problems`` holds one sentence for each reason."""

    def __init__(self, problems: Iterable[str] | str):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


def near(name: str, known: Iterable[str]) -> str:
    """`` - did you mean `x`?`` for the closest of `known`, otherwise what the known names are."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f" - did you mean `{close[0]}`?"
    return f" (known: {', '.join(f'`{k}`' for k in known)})" if known else " (there are none)"


def read_toml(path: Path) -> dict:
    """The tables of a TOML file. Raises SuiteError where it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SuiteError(f"{path}: there is no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: not valid TOML: {error}") from None
