"""Texts of the notebooks: tables and the guide's rules."""

import pandas as pd
import pytest

from vqlib import lessons
from vqlib.lessons import guide
from vqlib.training.experiments import arm


def test_the_difference_to_the_guide_is_in_points():
    table = lessons.beside_guide({0: 1.0, 50: 0.887}, {0: 0.99, 50: 0.9})
    assert table["difference (points)"].tolist() == ["-1.0", "+1.3"]
    assert table.index.tolist() == [0, 50]


def test_settings_stand_beside_the_guides():
    table = lessons.settings(arm("baseline"))
    assert table.loc["decay"].tolist() == [0.9, 0.9]
    assert table.loc["learning_rate", "the guide"] == "not stated"


def test_the_preset_is_the_guides_setting_where_it_states_one():
    preset = arm("baseline").to_dict()
    assert {k: preset[k] for k in guide.SETTING} == guide.SETTING


@pytest.mark.parametrize(
    ("measured", "met"),
    [((0.31, 0.26, 0.5, 40), 2), ((0.55, 0.5, 0.05, 40), 5), ((0.8, 0.9, 0.01, 1.5), 8)],
)
def test_levels_count_what_is_met(measured, met):
    assert sum(sum(level.judge(*measured).values()) for level in guide.LEVELS) == met


def test_the_optimal_level_asks_the_top_code_below_twice_the_average():
    (optimal,) = [level for level in guide.LEVELS if level.name == "optimal"]
    verdict = optimal.judge(0.9, 0.9, 0.0, 2.0)
    assert verdict.pop("top code < 2 x the average") is False and all(verdict.values())


@pytest.mark.parametrize(
    ("similarity", "std", "reading"),
    [
        (0.97, 0.005, "certain encoder collapse"),
        (0.97, 0.5, "critical"),
        (0.9, 0.5, "warning"),
        (0.7, 0.5, "normal"),
        (0.5, 0.5, "excellent"),
    ],
)
def test_the_encoder_is_read_as_the_guide_says(similarity, std, reading):
    assert guide.encoder_verdict(similarity, std) == reading


def test_a_table_of_sentences_is_whole():
    long = "word " * 40
    html = lessons.text_table(pd.DataFrame({"claim": [long]}, index=["hidden"])).to_html()
    assert long.strip() in html and "hidden" not in html


def test_a_change_is_decided_if_its_interval_leaves_out_zero(monkeypatch):
    made = {}
    monkeypatch.setattr("vqlib.record", made.__setitem__)
    lessons.record_change("a", [1.0, 2.0, 3.0], [2.0, 3.1, 3.9])
    lessons.record_change("b", [1.0, 2.0, 3.0], [2.0, 3.0, 1.0])
    lessons.record_change("c", [1.0], [9.0])
    assert made == pytest.approx(
        {"before/a": 2, "after/a": 3, "decided/a": True, "before/b": 2, "after/b": 2}
        | {"decided/b": False, "before/c": 1, "after/c": 9}
    )


def test_an_interval_is_cut_where_the_number_cannot_be():
    values = [3.0, 0.5, 8.0]
    assert lessons.with_interval(values, ".1f") == "3.8 (95 % interval -5.7 to 13.3)"
    assert lessons.with_interval(values, ".1f", (0, 10)) == "3.8 (95 % interval 0.0 to 10.0)"
    assert lessons.with_interval([3.0], ".0f", (0, 1)) == "3 (one seed, no interval)"


def test_a_training_shorter_than_the_guides_curve_is_refused():
    with pytest.raises(ValueError, match=r"steps: got 200; .* at least 201"):
        lessons.reaches_the_curve(200)
    lessons.reaches_the_curve(201)
