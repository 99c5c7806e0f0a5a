"""What several commands share."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vqlib.quantization.names import printable
from vqlib.quantization.ranges import SettingsError


def complain(error: object) -> None:
    """One line; no control character of a file's name reaches the terminal."""
    print(f"error: {printable(str(error))}", file=sys.stderr)


def split_pairs(pairs: Sequence[str], expected: str) -> dict[str, str]:
    """{before: after} of "before=after". Raises SettingsError for anything else."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise SettingsError(f"{expected}, got {wrong[0]!r}")
    return dict(pair.split("=", 1) for pair in pairs)
