"""Demonstrations under papermill: what they say is checked, and an error in a callback fails."""

import pytest

from tests.suite.tiny_suite import parameters, write_notebook, write_settings
from vqlib import suite

DEMO = """\
import matplotlib.pyplot as plt
from vqlib.playground import Demo, Slider

def compute(n):
    return 6 / (n - 3)

demo = Demo([Slider("n", "n", 1, 0, 9, 1, "codes", "how many")], compute,
            lambda state: plt.figure(), lambda state: f"It is {state:g}.")
demo
"""
LISTENER = """\
from vqlib.playground import Playground

play = Playground(codebook_size=8, tokens=32)

def broken(names):
    raise RuntimeError("a broken callback")

play.panels["data"].observe(broken)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    root = tmp_path_factory.mktemp("headless")
    directory = root / "notebooks"
    said = "assert demo.summary() == 'It is 6.'"
    write_notebook(directory, "01_good", parameters(), DEMO, "demo.set(n=4)", said)
    write_notebook(directory, "02_raises", parameters(), DEMO, "demo.set(n=3)", "print('on')")
    moved = "play.set(drift=1.0)"
    write_notebook(directory, "03_listener", parameters(), LISTENER, moved, "print('on')")
    write_settings(directory)
    found = suite.run(None, "quick", root / "build", directory=directory, progress=False)
    return {result.notebook: result for result in found}


def test_a_demonstration_is_set_and_asked(ran):
    assert ran["01_good"].error is None, ran["01_good"].error


@pytest.mark.parametrize(
    "notebook, says",
    [
        ("02_raises", "ZeroDivisionError: division by zero"),
        ("03_listener", "RuntimeError: a broken callback"),
    ],
)
def test_an_exception_in_a_callback_fails_the_run(ran, notebook, says):
    assert ran[notebook].error.startswith(says)
    assert suite.status([ran[notebook]], gates=False) == 2
