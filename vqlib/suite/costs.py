"""What executing a notebook costs: time, peak memory and size of its output."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from nbformat import NotebookNode

PAUSE = 0.2  # seconds between two looks at the memory
MB = 1e6


@dataclass(frozen=True)
class Cost:
    """In seconds and in megabytes (10^6 bytes); None where it was not measured."""

    seconds: float
    memory_mb: float | None = None
    output_mb: float | None = None

    def named(self) -> dict[str, float | None]:
        """{name: value}, with the names that a budget has in expected.toml."""
        return asdict(self)


class MemoryMeter:
    """The peak of the resident memory of a process and of all that it has started.

    A page that several processes share counts in each. The processes are looked at every `PAUSE`
    seconds, so a shorter peak of their sum can be missed; on Linux that of the process itself
    cannot, for the system keeps it.
    """

    def __init__(self) -> None:
        self.peak: int | None = None  #: in bytes

    @contextlib.contextmanager
    def follow(self, pid: int) -> Iterator[None]:
        """Watch the process `pid` as long as the block runs."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(PAUSE):
                self._look(pid)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self._look(pid)

    def _look(self, pid: int) -> None:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            total = process.memory_info().rss
            for child in process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += child.memory_info().rss
            self.peak = max(self.peak or 0, total, _highest(pid))


def _highest(pid: int) -> int:
    """The peak of one process by Linux's own account, in bytes; 0 where there is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def output_bytes(notebook: NotebookNode) -> int:
    """The size of all outputs of an executed notebook, and of its widgets, as JSON in UTF-8."""
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    widgets = notebook.metadata.get("widgets", {})
    text = json.dumps([output for cell in outputs for output in cell], ensure_ascii=False)
    return len(text.encode("utf-8", "replace")) + len(json.dumps(widgets)) - len("[]{}")
