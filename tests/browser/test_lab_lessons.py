"""The lessons in JupyterLab: every cell runs, and each demonstration follows its sliders."""

import json
import re
import urllib.request
from typing import NamedTuple

import pytest

from tests.browser.pages import Lab, still

ARROWS = ("ArrowLeft", "ArrowRight")


class Demo(NamedTuple):
    """A slider of a lesson's demonstration, where there is room, where its value is named."""

    notebook: str
    slider: str
    way: int
    says: str


DEMOS = [
    Demo("01_reproduce_collapse", ".vq-demo .vq-tokens", +1, r"window of ([\d,]+) tokens"),
    Demo("02_diagnose_ema_bias", ".vq-demo .vq-drift", +1, r"Drift ([\d.]+) %"),
    Demo("03_reset_dead_codes", ".vq-demo .vq-threshold", -1, r"Threshold ([\d.]+),"),
    Demo("04_compare_before_after", ".vq-demo .vq-step", -1, r"At step (\d+),"),
    Demo("05_tune", ".vq-demo .vq-tokens", +1, r"N ([\d,]+), K"),
]


def near(one: float, other: float) -> bool:
    """Equal, as far as two digits tell."""
    return one == pytest.approx(other, rel=0.06)


@pytest.fixture
def opened(lab):
    """Opens a notebook and runs it; leaves it after the test."""

    def run(stem: str) -> Lab:
        lab.open(f"{stem}.ipynb")
        lab.run_all(timeout=600)
        return lab

    yield run
    lab.leave()


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.notebook)
def test_a_lesson_runs_and_its_demonstration_follows_mouse_and_keyboard(
    opened, pictures, measured, demo
):
    notebook = opened(demo.notebook)
    page = notebook.page
    summary, picture = page.locator(".vq-demo .vq-summary"), page.locator(".vq-demo img")
    picture.scroll_into_view_if_needed()

    keys = ARROWS[:: -demo.way]

    def said() -> str:
        return summary.text_content()

    def named() -> float:
        return float(re.search(demo.says, said()).group(1).replace(",", ""))

    for move in (
        lambda: notebook.drag(demo.slider, 20 * demo.way),
        lambda: notebook.press(demo.slider, keys[0]),
    ):
        text, seen, value = said(), still(picture), named()
        move()
        notebook.changed(said, text)
        notebook.changed(lambda: still(picture), seen)
        notebook.until(lambda: near(named(), notebook.readout(demo.slider)))
        assert (named() - value) * demo.way > 0
    page.locator(".vq-demo").screenshot(path=pictures / f"{demo.notebook}.png")
    source = "document.querySelector('.vq-demo img').src"
    seconds = notebook.seconds_to_show(demo.slider, source, list(keys) * 2)
    measured(f"{demo.notebook}: {seconds[-1]:.2f} s at most from a key to the picture")
    assert notebook.complaints() == []


def test_the_last_lesson_runs_and_columns_of_its_log_are_switched(opened, pictures):
    notebook = opened("08_diagnose_your_model")
    page = notebook.page
    summary, picture = page.locator(".vq-demo .vq-summary"), page.locator(".vq-demo img")
    for act in (
        lambda: page.locator(".vq-demo .vq-drift input").click(),
        lambda: page.locator(".vq-demo .vq-outputs input").press(" "),
    ):
        text, seen = summary.text_content(), picture.get_attribute("src")
        act()
        notebook.changed(summary.text_content, text)
        notebook.changed(lambda: picture.get_attribute("src"), seen)
    assert "encoder drift" in summary.text_content()
    page.locator(".vq-demo").screenshot(path=pictures / "08_diagnose_your_model.png")
    assert notebook.complaints() == []


def test_the_kernel_is_this_environment_s(server):
    """A ``python3`` that is registered elsewhere on the machine must not win."""
    with urllib.request.urlopen(server.address("/api/kernelspecs"), timeout=30) as answer:
        specs = json.load(answer)["kernelspecs"]
    assert list(specs) == ["python3"]
