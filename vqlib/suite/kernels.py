"""Kernels for the suite: always this very interpreter, one thread each, none left over.

Papermill looks a kernel up by name among all that are registered on the machine, and the
``python3`` it finds may belong to another environment. `Kernels.manager` makes a kernel manager
that takes no name: its kernel runs `sys.executable`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path

import zmq
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec

from vqlib.training import places

# the kernel's own log: an interrupt is no news; a crash still prints its traceback
QUIET = "--IPKernelApp.log_level=50"
# where nobody looks at the figures; to draw them is a fourth of the work
UNDRAWN = {"MPLBACKEND": "agg"}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(scratch: Path) -> dict[str, str]:
    """What a kernel's environment adds to ours."""
    added = {
        # a person's IPython startup files and history must not affect a measurement
        "IPYTHONDIR": str(scratch.resolve() / "ipython"),
        "TQDM_DISABLE": "1",  # a finished progress bar is of no use to a reader
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    for library in ("OMP", "MKL", "OPENBLAS"):
        added[f"{library}_NUM_THREADS"] = "1"
    # from a checkout, notebooks import the same vqlib as the runner
    return added | places.python_path()


class Kernels:
    """All kernels of one run, so that they can be stopped from another thread."""

    def __init__(self, scratch: Path):
        self.stopping = threading.Event()
        self._started: list[AsyncKernelManager] = []
        self._scratch = scratch

    def manager(self, environ: Mapping[str, str]) -> type[AsyncKernelManager]:
        """A kernel manager's class; to the environment of its kernels it adds `environ`."""
        scratch = self._scratch
        spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", QUIET],
            display_name="Python 3",
            language="python",
            env=environment(scratch) | dict(environ),
            metadata={"supported_encryption": "curve"},
        )
        kernels = self

        class Manager(AsyncKernelManager):
            """Runs `spec`, no matter which kernel it is asked for."""

            kernel_spec = property(lambda self: spec)

            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                # not in Jupyter's folder, where it would stay if this process were killed
                self.connection_file = str(scratch.resolve() / f"kernel-{uuid.uuid4()}.json")
                if zmq.has("curve"):  # what a kernel prints is nobody else's on this machine
                    self.transport_encryption = "auto"

            async def _async_start_kernel(self, **kwargs):
                kernels._started.append(self)
                return await super()._async_start_kernel(**kwargs)

            start_kernel = _async_start_kernel

        return Manager

    def interrupt(self) -> None:
        """Ask every kernel to stop, as Ctrl-C in a terminal would; no further cell starts."""
        self.stopping.set()
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End every kernel and what it has started, at once."""
        self.stopping.set()
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM), group=True)

    def _signal(self, number: int, group: bool = False) -> None:
        for manager in self._started:
            process = getattr(manager.provisioner, "process", None)
            if process is None or process.poll() is not None:
                continue
            try:
                if group and hasattr(os, "killpg"):
                    os.killpg(process.pid, number)  # a kernel leads its own group
                else:
                    process.send_signal(number)
            except ProcessLookupError:
                pass  # it has ended by itself
