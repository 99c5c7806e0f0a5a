"""The figure of attempts at the optimal level shows the numbers of its table."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from vqlib.diagnosis.palette import BLUE, VERMILION
from vqlib.lessons import figures


@pytest.fixture
def drawn():
    table = pd.DataFrame(
        [(a, s, top + 0.1 * s, e * (1 + s)) for a, top, e in ARMS for s in range(5)],
        columns=["arm", "seed", "top_code_ratio", "recon_loss"],
    )
    figure = figures.flat.attempts(table, "reset")
    yield figure.axes
    plt.close(figure)


ARMS = (("even", 1.5, 0.011), ("reset", 8.0, 0.010), ("sharp", 5.0, 0.009))


def points(ax):
    return {
        round(float(line.get_ydata()[0])): line for line in ax.lines if line.get_marker() == "o"
    }


def test_arms_are_sorted_by_their_top_code_and_coloured_by_the_condition(drawn):
    names = [label.get_text() for label in drawn[0].get_yticklabels()]
    assert names == ["reset", "sharp", "even"]
    top, ratio = points(drawn[0]), points(drawn[1])
    np.testing.assert_allclose([top[i].get_xdata()[0] for i in range(3)], [8.2, 5.2, 1.7])
    np.testing.assert_allclose([ratio[i].get_xdata()[0] for i in range(3)], [1.0, 0.9, 1.1])
    assert [top[i].get_color() for i in range(3)] == [VERMILION, VERMILION, BLUE]
    assert [ratio[i].get_color() for i in range(3)] == [BLUE, BLUE, VERMILION]


def test_the_lines_are_the_guides_bound_and_no_change(drawn):
    dashed = [[line.get_xdata()[0] for line in ax.lines if line.get_ls() == "--"] for ax in drawn]
    assert dashed == [[2.0], [1.0]]
