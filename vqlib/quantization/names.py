"""For an unknown name, the one that was probably meant."""

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
