"""What the tests of sweeps measure. In a module, so that worker processes can import it.

Each call writes a line to the file that its config names, so that a test can count.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

from vqlib.training import experiments


def noted(config: dict, seed: int) -> None:
    with open(config["log"], "a") as log:
        log.write(f"{config['x']} {seed} {os.getpid()}\n")


def calls(log: Path) -> Counter:
    """{(x, seed): how often it was measured}."""
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter((float(x), int(seed)) for x, seed, _ in map(str.split, lines))


def product(config: dict, seed: int) -> dict:
    """x * seed, after ``seconds``; with ``fails`` equal to seed, an error."""
    noted(config, seed)
    time.sleep(config.get("seconds", 0))
    if config.get("fails") == seed:
        raise ArithmeticError("no result")
    return {"product": config["x"] * seed, "name": f"{config['x']}"}


def deadly(config: dict, seed: int) -> dict:
    """As `product`, but on seed ``dies`` the worker process is killed."""
    noted(config, seed)
    if config.get("dies") == seed:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return {"product": config["x"] * seed}


def waits_for_another(config: dict, seed: int) -> dict:
    """A sweep inside a run: of what the other arms wait for too."""
    noted(config, seed)
    inner = {"inner": {"x": 2.0, "log": config["log"]}}
    table = experiments.sweep(inner, [1, 2], product, key="1", progress=False)
    return {"total": float(table["product"].sum())}


def once_killed(config: dict, seed: int) -> dict:
    """As `product`; on seed ``waits`` the first call only waits to be killed."""
    noted(config, seed)
    if config.get("waits") == seed and calls(Path(config["log"]))[config["x"], seed] == 1:
        time.sleep(600)
    time.sleep(0.1)
    return {"product": config["x"] * seed}
