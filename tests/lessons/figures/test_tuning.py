"""Figures of the tuning: what is drawn is what the table says."""

import pandas as pd
import pytest

from tests.lessons.test_tuning import SEEDS, additive, table
from vqlib.lessons import tuning
from vqlib.lessons.figures import tuning as figures


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_heat_map_frames_the_guide_and_says_each_change():
    crossings = {"decay and beta": tuning.CROSSINGS["decay and beta"]}
    figure = figures.heat_maps(table(lambda c, s: additive(c, 0) + s % 2), crossings)
    ax = figure.axes[0]
    assert ax.get_title("left") == "decay and beta" and len(ax.texts) == 10
    plain = [text for text in texts(ax) if "\n" not in text]
    assert plain == ["40"]  # the framed cell, 40.5 rounded to even
    assert [t for t in texts(ax) if t.endswith("+13 ± 0")] == ["54\n+13 ± 0"] * 6
    (frame,) = ax.patches
    x, y = frame.get_xy()
    assert (round(x), round(y)) == (0, 1)  # beta 0.25, decay 0.9


def test_maps_share_one_scale_and_empty_places_stay_empty():
    names = ["decay and beta", "decay and refill", "threshold and refill", "donors and refill"]
    figure = figures.heat_maps(table(additive), {n: tuning.CROSSINGS[n] for n in names})
    images = [ax.images[0] for ax in figure.axes[:6] if ax.images]
    assert len(images) == 4
    assert len({image.get_clim() for image in images}) == 1


def test_synergies_have_three_marks_a_companion():
    judged = tuning.judged(table(additive))
    ax = figures.synergies(judged).axes[0]
    marks = [line.get_xdata()[0] for line in ax.lines if line.get_marker() in "osD"]
    assert len(marks) == 3 * len(judged)
    assert marks[0] == pytest.approx(4) and marks[2 * len(judged)] == pytest.approx(9)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(judged.index)


def test_travels_have_a_panel_a_bed_and_a_dot_a_seed():
    rows = [(b, a, s, 0.5) for b in tuning.BEDS for a in tuning.TRAVELLERS for s in SEEDS]
    data = pd.DataFrame(rows, columns=["bed", "arm", "seed", "utilization"])
    figure = figures.travels(data)
    titles = [bed.replace(", ", "\n") for bed in tuning.BEDS]
    assert [ax.get_title("left") for ax in figure.axes] == titles
    dots = sum(len(li.get_xdata()) for li in figure.axes[0].lines if li.get_marker() == ".")
    assert dots == len(SEEDS) * len(tuning.TRAVELLERS)
    one = figures.travels(data[data["bed"] == next(iter(tuning.BEDS))])
    assert len(one.axes) == 1


def test_every_split_is_counted_and_the_mean_marked():
    splits = tuning.regrets(table(lambda c, s: s * (1 - c.decay)), SEEDS)
    ax = figures.regret(splits).axes[0]
    assert sum(patch.get_height() for patch in ax.patches) == len(splits)
    assert ax.lines[-1].get_xdata()[0] == splits["regret"].mean()


def test_a_map_without_the_guides_level_is_compared_with_it_all_the_same():
    maps = {"in shares": tuning.IN_SHARES, "no reset": tuning.WITHOUT_RESET}
    shares, without = figures.heat_maps(table(lambda c, s: additive(c, s)), maps).axes[:2]
    assert texts(shares) == ["85\n0 ± 0"] * 4 and not shares.patches
    assert shares.get_xlabel() == "threshold (shares of N/K)"
    assert "45" in texts(without) and "49\n+4 ± 0" in texts(without)  # against the baseline
