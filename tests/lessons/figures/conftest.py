"""For all figures: no window, our style, and nothing left open."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest

from vqlib.lessons.figures import curves


@pytest.fixture(autouse=True)
def close_figures():
    curves.set_style()
    yield
    plt.close("all")
