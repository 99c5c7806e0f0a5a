"""The trial's figures carry the numbers they are given."""

import math

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch

from vqlib.lessons import effects
from vqlib.lessons.claims import ARMS, HYPOTHESES, LEADERS_SHARE
from vqlib.lessons.figures import claims


def rows(**values):
    names = [n for n in (*ARMS, LEADERS_SHARE) if n != "baseline"]
    data = {n: (*values.get(n, (0.0, -1.0, 1.0)), (0.0, 0.1)) for n in names}
    return pd.DataFrame.from_dict(data, orient="index", columns=["mean", "low", "high", "values"])


def drawn(figure):
    """{arrow's key: its patch}, in the order of ARROWS; the first one closes the ring."""
    patches = [p for p in figure.axes[0].patches if isinstance(p, FancyArrowPatch)]
    return dict(zip(("6-1", *claims.ARROWS), patches, strict=True))


def test_each_hypothesis_is_an_arrow():
    assert set(claims.ARROWS) == set(HYPOTHESES)
    assert {end for ends in claims.ARROWS.values() for end in ends} == set(claims.NODES)


def test_arrows_show_verdict_and_size():
    data = rows(**{"frozen encoder": (80, 70, 90), "beta 0": (10, -9, 30)})
    arrows = drawn(claims.cycle(effects.judge(data, lost=80.0)))
    looks = {key: to_hex(arrow.get_edgecolor()).upper() for key, arrow in arrows.items()}
    for key, verdict in (("drift", "supported"), ("counts", "refuted"), ("pull", "undecided")):
        assert looks[key] == claims.VERDICT_LOOKS[verdict][0]
    assert arrows["drift"].get_linewidth() == claims.width(80) > arrows["pull"].get_linewidth()
    assert arrows["pull"].get_linewidth() > arrows["counts"].get_linewidth()


def test_arrows_and_boxes_tell_their_effect():
    data = rows(**{"frozen encoder": (80, 70.4, 90), "unused pulled": (41, 24.6, 70.8)})
    texts = [t.get_text() for t in claims.cycle(effects.judge(data, lost=80.0)).axes[0].texts]
    assert "the encoder\nmoves\nfrozen encoder\n+80 [+70, +90]" in texts
    assert "unused pulled" in texts and "+41 [+25, +71]" in texts


def test_one_seed_has_no_interval_to_tell():
    row = pd.Series({"mean": -12.4, "low": math.nan, "high": math.nan})
    assert claims.effect_text(row) == "−12"
    assert claims.effect_text(pd.Series({"mean": 0.2, "low": -0.4, "high": 7})) == "0 [0, +7]"


def test_a_width_grows_with_the_effect_whatever_its_sign():
    assert claims.width(-40) == claims.width(40) > claims.width(10)
    assert claims.width(250) == claims.width(100)


def test_the_forest_draws_mean_interval_and_role_of_each_arm():
    data = rows(**{"frozen encoder": (80, 70, 90)}).drop(index=LEADERS_SHARE)
    ax = claims.forest(data, lost=80.0).axes[0]
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels == list(data.index)
    y = labels.index("frozen encoder")
    (span,) = [x for x in ax.lines if list(x.get_ydata()) == [y, y] and x.get_ls() == "-"]
    assert list(span.get_xdata()) == [70, 90]
    assert span.get_color() == claims.ROLE_LOOKS["drives"][0]


def test_dots_show_each_seed_and_the_mean():
    table = pd.DataFrame(
        {
            "arm": ["baseline", "baseline", "beta 0", "beta 0"],
            "seed": [0, 1, 0, 1],
            "utilization": [0.1, 0.2, 0.3, 0.5],
            "drift": 1.0,
            "lag": 5.0,
            "dead_distance": [math.nan, math.nan, 3.0, 5.0],
        }
    )
    panels = claims.mechanism_dots(table).axes
    reference, dots, means = panels[0].lines
    assert reference.get_xdata()[0] == pytest.approx(0.15)
    assert list(dots.get_xdata()) == [0.1, 0.2, 0.3, 0.5] and list(dots.get_ydata()) == [0, 0, 1, 1]
    assert list(means.get_xdata()) == pytest.approx([0.15, 0.4])
    assert panels[3].lines[2].get_xdata()[1] == 4.0
