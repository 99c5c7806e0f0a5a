"""Names from outside: the one that was probably meant, and text that is safe on a terminal."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str]) -> str:
    """`` - did you mean `x`?`` for the closest of `known`; otherwise the known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f" - did you mean `{close[0]}`?"
    return f" (known: {', '.join(f'`{k}`' for k in known)})" if known else " (there are none)"


def printable(text: str) -> str:
    """``text`` without control characters: a name must not move a terminal's cursor."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
