"""One error that lists every problem of a suite, and the TOML files that raise it."""

from __future__ import annotations

import re
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
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise SuiteError(f"{path}: there is no such file") from None
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"{path}: not valid TOML: {error}{_hint(text, str(error))}") from None
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise SuiteError(f"{path}: nested too deep") from None


def _hint(text: str, error: str) -> str:
    """What most often is wrong with the line that the error names: a name that needs quotes."""
    found = re.search(r"line (\d+)", error)
    line = text.splitlines()[int(found[1]) - 1] if found else ""
    bare = re.match(r"\s*\[*\s*([^\s\"'=\[\]#][^\"'=\[\]]*)", line)
    name = bare[1].strip() if bare else ""
    if not name or re.fullmatch(r"[\w.-]+", name, re.ASCII):
        return ""
    return f'; a name with more than letters, digits, _ and - needs quotes, like "{name}"'
