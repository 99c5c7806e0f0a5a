"""Understand, diagnose and fix VQ codebook collapse."""

import lazy_loader

from vqlib import extras

__version__ = "0.1.0"

# the public names stand in __init__.pyi; each is imported when it is first asked for
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name):
    with extras.named():
        return _load(name)
