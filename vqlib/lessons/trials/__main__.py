"""``python -m vqlib.lessons.trials NAME``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil

from vqlib.lessons import trials

NAMES = [m.name for m in pkgutil.iter_modules(trials.__path__) if not m.name.startswith("_")]


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a trial and keep its table.")
    parser.add_argument("name", choices=NAMES)
    name = parser.parse_args().name
    trials.write(name, importlib.import_module(f"vqlib.lessons.trials.{name}").run())
    print(trials.provenance(name))


if __name__ == "__main__":
    main()
