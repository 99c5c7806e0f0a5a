"""What is installed beside the tests, and what needs what."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(requirements: Iterable[Requirement]) -> dict[str, metadata.Distribution]:
    """The installed distributions that ``requirements`` ask for, and those that these ask for."""
    waiting, found = list(requirements), {}
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), *sorted(requirement.extras))
        if key in found:
            continue
        found[key] = metadata.distribution(requirement.name)
        waiting += [
            needed
            for needed in map(Requirement, found[key].requires or ())
            if needed.marker is None
            or any(needed.marker.evaluate({"extra": e}) for e in ("", *requirement.extras))
        ]
    return {name: distribution for (name, *_), distribution in found.items()}
