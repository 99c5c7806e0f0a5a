"""Talking to a kernel that may not answer: papermill's client, with a bound on every silence.

A request can be lost between two processes (a wake-up missed in the kernel, see ipykernel's issue
1554): the kernel then sits idle, and its client would wait without end. A kernel that works says so
at once, with a status message, and only then may take its time. So silence can be told from work:
after `NUDGE` seconds another request wakes the kernel's channel, after `SILENCE`
seconds it is given up.
"""

from __future__ import annotations

import contextlib
import time

from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.iorw import write_ipynb

MOST_OUTPUT = 20_000_000  # characters of a notebook; what a lesson shows takes a tenth
START = 60  # seconds a kernel may take until it first answers
NUDGE = 5.0
SILENCE = 60.0
ENGINE = "vqlib"


class Unanswered(DeadKernelError):
    """The kernel lives but took no notice of a request."""


class Flooded(DeadKernelError):
    """The notebook prints more than anybody reads, or a browser can show."""


class Client(PapermillNotebookClient):
    """Executes the cells; raises Unanswered if the kernel ignores one, Flooded if it says much."""

    meter = None  # a costs.MemoryMeter that follows the kernel
    printed = 0  # characters of output so far
    asked = 0.0
    answered = True
    nudged = False

    def execute(self, **kwargs):
        """As papermill's, less its last question to the kernel, for which it waits unbounded."""
        self.reset_execution_trackers()
        with self.setup_kernel(**kwargs), self._metered():
            self.papermill_execute_cells()
            self.set_widgets_metadata()
        return self.nb

    def _metered(self):
        process = getattr(self.km.provisioner, "process", None)
        known = self.meter is not None and process is not None
        return self.meter.follow(process.pid) if known else contextlib.nullcontext()

    def start_new_kernel_client(self, **kwargs):
        """As nbclient's, which knows no name for a kernel that starts and says nothing."""
        try:
            return super().start_new_kernel_client(**kwargs)
        except RuntimeError as error:
            raise Unanswered(str(error)) from error

    def execute_cell(self, cell, cell_index, **kwargs):
        """As nbclient's; if the kernel was given up, says how it failed."""
        self.asked, self.answered, self.nudged = time.monotonic(), False, False
        try:
            return super().execute_cell(cell, cell_index, **kwargs)
        except DeadKernelError as error:
            if self.printed > MOST_OUTPUT:
                raise Flooded(f"cell {cell_index}") from error
            if self.ignored():
                raise Unanswered(f"cell {cell_index} was ignored for {SILENCE:g} s") from error
            raise

    def process_message(self, msg, *args, **kwargs):
        """A message about the running cell, the first of which says that the kernel is busy."""
        self.answered = True
        self.printed += _size(msg)
        if self.printed > MOST_OUTPUT:
            return None  # dropped; the kernel is given up at the next look
        return super().process_message(msg, *args, **kwargs)

    def ignored(self) -> bool:
        """Whether the running cell's request has been met with silence for too long."""
        return not self.answered and time.monotonic() - self.asked > SILENCE

    async def _async_check_alive(self) -> None:  # nbclient asks every second
        # now and then nobody is told of a reply that has come: seen on a busy machine, with both
        # sockets readable and the loop asleep. Polling again tells the first in line
        for channel in (self.kc.shell_channel, self.kc.iopub_channel):
            await channel.socket.poll(1)
        if not self.answered and not self.nudged and time.monotonic() - self.asked > NUDGE:
            self.nudged = True
            self.kc.kernel_info()
        if self.ignored() or self.printed > MOST_OUTPUT:
            raise DeadKernelError
        await super()._async_check_alive()


def _size(msg: dict) -> int:
    """Characters that a message adds to the notebook."""
    content = msg.get("content", {})
    shown = [content.get("text", ""), *(content.get("data") or {}).values()]
    return sum(len(part) for part in shown if isinstance(part, str))


class VqlibEngine(Engine):
    """Papermill's engine with `Client`, which saves once: after each cell takes a sixth of the time
    of a lesson whose runs are kept."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, path, options, meter, **_):
        """Run the cells of `nb_man`, the kernel's memory metered; `options` are traits of the
        client. What was reached goes to `path` if they could not all be run."""
        client = Client(nb_man, kernel_name=kernel_name, startup_timeout=START, **options)
        client.meter = meter
        try:
            return client.execute()
        except BaseException:
            write_ipynb(nb_man.nb, str(path))
            raise


papermill_engines.register(ENGINE, VqlibEngine)
