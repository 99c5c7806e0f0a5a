"""Which packages are installed, and which extra of vqlib brings one that is not.

Imports nothing of vqlib.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from functools import cache
from importlib import metadata

# modules that are not named like the distribution they come in
DISTRIBUTIONS = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "zmq": "pyzmq",
}
_OF_AN_EXTRA = re.compile(r"""([\w.-]+).*extra *== *['"]([\w.-]+)['"]""")


class NotInstalled(ModuleNotFoundError):
    """A package that only a part of vqlib needs is not there; the message says how to get it."""


def installed(package: str) -> str | None:
    """The version of a distribution; None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def not_installed(name: str, extra: str | None = None) -> NotInstalled:
    """The error for a module or a distribution.

    Args:
        name: what is missing.
        extra: what to install; None: the smallest extra of vqlib with it, if there is one.
    """
    top = name.split(".")[0]
    distribution = DISTRIBUTIONS.get(top, top)
    extra = extra or _extras().get(_plain(distribution))
    remedy = f"; pip install 'vqlib[{extra}]'" if extra else ""
    return NotInstalled(f"{distribution} is not installed{remedy}", name=top)


@contextmanager
def named(extra: str | None = None):
    """Inside it, the error for a missing package of an extra says what to install.

    Args:
        extra: what all of the code inside needs; None: the smallest extra with the package.
    """
    try:
        yield
    except NotInstalled:
        raise
    except ModuleNotFoundError as error:
        top = (error.name or "").split(".")[0]
        if _plain(DISTRIBUTIONS.get(top, top)) not in _extras():
            raise
        raise not_installed(top, extra) from None


@cache
def _extras() -> dict[str, str]:
    """{distribution: the smallest extra with it}, from vqlib's metadata; empty without metadata."""
    try:
        lines = metadata.requires("vqlib") or []
    except metadata.PackageNotFoundError:
        return {}
    listed = [(_plain(m[1]), m[2]) for m in map(_OF_AN_EXTRA.match, lines) if m]
    sizes = Counter(extra for _, extra in listed)
    return dict(sorted(listed, key=lambda entry: sizes[entry[1]], reverse=True))


def _plain(name: str) -> str:
    """A distribution's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()
