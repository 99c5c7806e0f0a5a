"""Callbacks: a watch and its alarms in the trainers people have, written to their loggers.

Importing this imports no trainer; each name imports its own when it is first asked for.
"""

import lazy_loader

from vqlib import extras

# the public names stand in __init__.pyi
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with extras.named("trainers"):
        return _load(name)
