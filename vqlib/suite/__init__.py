"""Notebooks through papermill: run, records, gates, the report."""

import lazy_loader

# the names stand in __init__.pyi; `record` must not wait for papermill
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
