"""For all tests: one thread each, for they run side by side; Ctrl-C as in a terminal."""

import gc
import os
import signal

# before torch comes: threads of several tests on the same cores wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
# a process for each training costs more than it brings
os.environ.setdefault("VQLIB_JOBS", "1")
# a shell's background job ignores it, and so would every process that a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)

EXECUTED, BROWSER = "tests/notebooks/test_executed.py", "tests/browser/"


def pytest_collection_modifyitems(items):
    """What executes every notebook goes first; the browser's tests come late, and find its runs."""

    def place(item) -> tuple[bool, str]:
        file = item.nodeid.partition("::")[0]
        return file != EXECUTED, file.replace(BROWSER, "tests/suite/z")

    items.sort(key=place)  # the tests of a file stay in their order


def pytest_collection_finish():
    """What was imported stays: no test's `gc.collect` need go through it, half a second each."""
    gc.collect()
    gc.freeze()
