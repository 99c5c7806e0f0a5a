"""The Pareto figure: names that do not touch, the front in bold, intervals from five seeds on."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from vqlib.lessons.figures import fronts

ARMS = [f"a remedy of number {n}" for n in range(23)]
ACTS = dict(zip(ARMS, itertools.cycle(fronts.ACTS), strict=False))


def runs(seeds):
    """23 arms that lie close: most of them within a tenth of the figure."""
    draw = np.random.default_rng(0)
    middle = draw.normal(50, 8, len(ARMS)), draw.normal(0.02, 0.001, len(ARMS))
    return pd.DataFrame(
        [
            {"arm": arm, "seed": s, "perplexity": p + draw.normal(), "error": e}
            for s in range(seeds)
            for arm, p, e in zip(ARMS, *middle, strict=True)
        ]
    )


@pytest.fixture
def drawn():
    figure = fronts.pareto(runs(5), "perplexity", "error", ACTS)
    figure.canvas.draw()
    yield figure
    plt.close(figure)


def test_no_two_names_overlap_and_all_are_there(drawn):
    texts = drawn.axes[0].texts
    assert sorted(t.get_text() for t in texts) == sorted(ARMS)
    boxes = [t.get_window_extent() if not hasattr(t, "get_bbox_patch") else box(t) for t in texts]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    inside = drawn.bbox
    assert all(inside.x0 <= b.x0 and b.x1 <= inside.x1 for b in boxes)


def box(annotation):
    """Of the words alone, without the line that leads to the point."""
    return super(type(annotation), annotation).get_window_extent()


def test_the_front_is_bold(drawn):
    bold = {t.get_text() for t in drawn.axes[0].texts if t.get_fontweight() == "bold"}
    means = runs(5).groupby("arm", sort=False)[["perplexity", "error"]].mean()
    assert bold == set(fronts.front(means, "perplexity", "error"))
    assert 0 < len(bold) < len(ARMS)


def test_intervals_need_five_seeds():
    def widest(seeds):
        figure = fronts.pareto(runs(seeds), "perplexity", "error", ACTS)
        spans = [np.ptp(line.get_xdata()) for line in figure.axes[0].lines if line.get_lw() == 1.2]
        plt.close(figure)
        return max(spans)

    assert widest(4) == 0 < widest(5)


def test_heights_are_apart_in_order_and_stay_where_there_is_room():
    places = [0.5, 0.1, 0.51, 0.52, 0.9, 0.5]
    heights = fronts.spread(places, 0.05)
    assert np.diff(np.sort(heights)).min() >= 0.05 - 1e-9
    assert heights[1] == pytest.approx(0.1) and heights[4] == pytest.approx(0.9)
    assert heights[2] < heights[3] and heights[0] < heights[2]
    crowded = fronts.spread([0.99] * 10, 0.1)
    assert crowded.min() == pytest.approx(0.05) and crowded.max() == pytest.approx(0.95)
