"""Notebooks through papermill: run, records, gates, the report."""

import lazy_loader

from vqlib import extras

# the names stand in __init__.pyi; `record` must not wait for papermill
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name):
    with extras.named("notebooks"):
        return _load(name)
