"""A demonstration: sliders, a picture, a sentence, a target; nothing goes wrong in silence."""

import matplotlib.pyplot as plt
import pytest

from vqlib.playground import Demo, Slider
from vqlib.quantization.ranges import SettingsError


def draw(state):
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.plot(range(state))
    return figure


def compute(n):
    if n == 9:
        raise SettingsError("9 is the unlucky number here", "n")
    if n == 8:
        raise ValueError("n is in this error that names no control")
    return n


@pytest.fixture
def demo():
    return Demo(
        [Slider("n", "n", 3, 1, 10, 1, "codes", "How many.")],
        compute,
        draw,
        lambda n: f"There are {n}.",
        target="have 5",
        reached=lambda n: n == 5,
    )


def test_a_move_changes_state_picture_and_words(demo):
    before = bytes(demo._picture.value)
    demo.set(n=7)
    assert demo.state == 7 and demo._picture.value != before
    assert "There are 7." in demo.summary()
    assert demo._words.value == "There are 7."


def test_the_target(demo):
    assert not demo.reached and "not yet" in demo.summary()
    demo.set(n=5)
    assert demo.reached and "✓ reached" in demo.summary() and "✓" in demo._goal.value


def test_values_that_do_not_go_are_said_beside_the_control(demo):
    with pytest.raises(ValueError, match="unlucky"):
        demo.set(n=9)
    assert demo.panel.complaints.keys() == {"n"} and demo.state == 3
    demo.set(n=4)
    assert demo.panel.complaints == {} and demo.state == 4


def test_a_broken_callback_is_seen_and_raised(demo):
    with pytest.raises(ValueError, match="names no control"):
        demo.set(n=8)
    assert "names no control" in demo._error.value
    demo.set(n=4)
    assert demo._error.value == ""


def test_figures_do_not_pile_up(demo):
    before = plt.get_fignums()
    for n in (4, 5, 6):
        demo.set(n=n)
    assert plt.get_fignums() == before


def test_it_shows_as_a_widget(demo):
    assert "application/vnd.jupyter.widget-view+json" in demo._repr_mimebundle_()


def test_the_still_figure(demo):
    assert demo.figure().axes
    plt.close("all")
