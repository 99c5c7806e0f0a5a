"""One error that lists every problem of a suite, and the TOML files that raise it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path


class SuiteError(ValueError):
    """The suite cannot run as it is written. ``problems`` holds one sentence for each reason."""

    def __init__(self, problems: Iterable[str] | str):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


def read_toml(path: Path) -> dict:
    """The tables of a TOML file. Raises SuiteError if it is missing or malformed."""
    try:
        if path.exists() and not path.is_file():  # a pipe, say, which nobody may ever fill
            raise SuiteError(f"{path}: expected a file")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SuiteError(f"{path}: there is no such file") from None
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise SuiteError(f"{path}: nested too deep") from None
