"""What a training changes in its process and gives back: torch's threads, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager

import torch


@contextmanager
def cpu_threads(count: int | None):
    """torch's CPU threads inside the block; None leaves them as they are."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deferred_interrupt():
    """Collects Ctrl-C, to be read between steps; a second one interrupts at once."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number, frame):
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
