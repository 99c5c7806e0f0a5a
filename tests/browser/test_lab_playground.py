"""Notebook 07 in JupyterLab, by mouse and by keyboard: the playground and real trainings."""

import time

import pytest

from tests.browser.pages import still

WORLD = ".vq-playground"
TRAIN = ".vq-trainings"
# and how far each is dragged, in pixels: none may stand at its end
SLIDERS = {
    "tokens": 12,
    "drift": 12,
    "seed": 12,
    "codebook_size": 12,
    "decay": -12,
    "threshold": 12,
    "every": 12,
    "refill": 12,
}
CHOICES = ("surface", "pattern", "donors", "start", "variant")
SWITCHES = ("freeze", "relative", "distinct")


@pytest.fixture(scope="module")
def notebook(lab):
    """Notebook 07 with all its cells run."""
    lab.open("07_playground.ipynb")
    lab.run_all(timeout=600)
    yield lab
    lab.leave()


@pytest.fixture
def canvas(notebook):
    """The playground's canvas, in view and at rest; no error may be left on the page."""
    found = notebook.page.locator(f"{WORLD} canvas.vq-canvas")
    found.scroll_into_view_if_needed()
    yield found
    assert notebook.complaints() == []


def step(canvas) -> int:
    return int(canvas.get_attribute("data-step"))


def revision(canvas) -> int:
    return int(canvas.get_attribute("data-revision"))


def said(notebook) -> str:
    return notebook.page.locator(f"{WORLD} .vq-summary").text_content()


def test_play_by_mouse_and_pause_by_keyboard(notebook, canvas, pictures, measured):
    before, seen = step(canvas), still(canvas)
    notebook.page.locator(".vq-play").click()
    notebook.until(lambda: step(canvas) > before + 20, "the steps go on")
    drawn, start = int(canvas.get_attribute("data-drawn")), time.monotonic()
    notebook.page.wait_for_timeout(2000)
    frames = int(canvas.get_attribute("data-drawn")) - drawn
    measured(f"playground: {frames / (time.monotonic() - start):.0f} frames a second")
    assert frames > 1
    canvas.press(" ")
    notebook.until(lambda: notebook.kernel("play.canvas.playing") is False)
    notebook.page.wait_for_timeout(300)
    stands = step(canvas)
    notebook.page.wait_for_timeout(500)
    assert step(canvas) == stands == notebook.kernel("play.a.step_number")
    assert still(canvas) != seen
    assert f"after {stands} steps" in said(notebook)
    notebook.page.locator(WORLD).screenshot(path=pictures / "playground.png")


def test_step_and_reset_by_mouse_and_by_keyboard(notebook, canvas):
    for again, on in (
        (notebook.page.locator(".vq-reset").click, notebook.page.locator(".vq-step").click),
        (lambda: canvas.press("r"), lambda: canvas.press(".")),
    ):
        on()
        notebook.until(lambda: step(canvas) > 1)
        again()
        notebook.until(lambda: step(canvas) == 1, "begun anew")
        on()
        notebook.until(lambda: step(canvas) == 2, "one step on")


def test_a_preset_is_taken(notebook, canvas):
    presets = notebook.page.locator(f"{WORLD} select").first
    presets.select_option(label="the guide's reset")
    notebook.until(lambda: "threshold 1" in said(notebook))
    assert notebook.readout(f"{WORLD} .vq-threshold") == 1
    assert notebook.kernel("play.a.setting.threshold") == 1
    named = presets.evaluate("select => select.selectedOptions[0].text")
    assert named.replace("\xa0", " ") == "the guide's reset"
    notebook.press(f"{WORLD} .vq-decay", "ArrowLeft")  # which is no longer that preset
    notebook.until(lambda: presets.evaluate("select => select.selectedIndex") == 0)


def move(notebook, canvas, name, act) -> None:
    """Move a slider, and wait until its field, the picture and the world have followed."""
    row = f"{WORLD} .vq-{name}"
    before, shown = notebook.readout(row), revision(canvas)
    act()
    notebook.until(lambda: notebook.readout(row) != before, f"the field of {name} shows the move")
    notebook.until(lambda: revision(canvas) > shown, f"a new picture after {name} was moved")

    def followed() -> bool:
        value = notebook.kernel(f"play.a.setting.{name}") or 0
        return value == pytest.approx(notebook.readout(row))

    notebook.until(followed, f"the world's {name} is the slider's")


@pytest.mark.parametrize("name, pixels", SLIDERS.items())
def test_a_slider_reaches_the_world_by_mouse_and_by_keyboard(notebook, canvas, name, pixels):
    row = f"{WORLD} .vq-{name}"
    move(notebook, canvas, name, lambda: notebook.drag(row, pixels))
    move(notebook, canvas, name, lambda: notebook.press(row, "ArrowRight"))
    move(notebook, canvas, name, lambda: notebook.press(row, "ArrowLeft"))
    if name in ("tokens", "drift", "decay", "threshold", "codebook_size"):
        text = f"{notebook.readout(row):,.4f}".rstrip("0").rstrip(".")
        notebook.until(lambda: text in said(notebook), f"{text} in the summary")


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_reaches_the_world(notebook, canvas, name):
    before, seen = notebook.kernel(f"play.a.setting.{name}"), revision(canvas)
    chosen = notebook.page.locator(f"{WORLD} .vq-{name} select")
    chosen.select_option(index=1)
    notebook.until(lambda: notebook.kernel(f"play.a.setting.{name}") != before)
    notebook.until(lambda: revision(canvas) > seen, "a new picture")
    chosen.select_option(index=0)
    notebook.until(lambda: notebook.kernel(f"play.a.setting.{name}") == before)


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_reaches_the_world(notebook, canvas, name):
    for on in (True, False):
        seen = revision(canvas)
        notebook.page.locator(f"{WORLD} .vq-{name} input").click()
        notebook.until(lambda on=on: notebook.kernel(f"play.a.setting.{name}") is on)
        notebook.until(lambda seen=seen: revision(canvas) > seen, "a new picture")


def test_a_and_b_are_shown_side_by_side(notebook, canvas, pictures):
    notebook.page.locator(f"{WORLD} .vq-compare input").click()
    notebook.until(lambda: "\nB: " in said(notebook))
    notebook.page.get_by_role("tab", name="Codebook B").click()
    notebook.press(f"{WORLD} .vq-codebook_size_b", "ArrowRight")
    notebook.until(
        lambda: f"B: With K {notebook.kernel('play.b.setting.codebook_size')}" in said(notebook)
    )
    assert notebook.kernel("play.b.setting.codebook_size != play.a.setting.codebook_size")
    notebook.page.locator(WORLD).screenshot(path=pictures / "playground_a_b.png")
    notebook.page.locator(f"{WORLD} .vq-compare input").click()
    notebook.until(lambda: "\nB: " not in said(notebook))


def test_how_soon_a_slider_is_seen(notebook, canvas, measured):
    shown = f"document.querySelector('{WORLD} canvas.vq-canvas').dataset.revision"
    keys = ["ArrowRight", "ArrowLeft"] * 6
    seconds = notebook.seconds_to_show(f"{WORLD} .vq-threshold", shown, keys)
    measured(
        f"playground: {1000 * seconds[-1]:.0f} ms at most from a key to the picture, "
        f"{1000 * seconds[len(seconds) // 2]:.0f} ms in the middle"
    )


# real trainings


def rows(notebook) -> dict[str, str]:
    found = notebook.page.locator(f"{TRAIN} tr[data-run]").all()
    return {row.get_attribute("data-run"): row.get_attribute("data-state") for row in found}


def test_train_streams_and_stop_stops_and_keeps_the_run(notebook, canvas, pictures, measured):
    page, curves = notebook.page, notebook.page.locator(f"{TRAIN} canvas.vq-curves").first
    notebook.press(f"{TRAIN} .vq-steps", "End")
    notebook.until(lambda: notebook.readout(f"{TRAIN} .vq-steps") == 5000)
    page.locator(f"{TRAIN} input[type=text]").fill("by hand")
    page.locator(f"{TRAIN} .vq-train").click()
    progress = page.locator(f"{TRAIN} progress")
    notebook.until(lambda: progress.count() and int(progress.get_attribute("value")) > 0)
    curves.scroll_into_view_if_needed()
    notebook.changed(lambda: still(curves), still(curves))

    value, seen = notebook.kernel("play.a.setting.seed"), revision(canvas)
    notebook.press(f"{WORLD} .vq-seed", "ArrowRight")  # the rest is usable meanwhile
    notebook.until(lambda: notebook.kernel("play.a.setting.seed") != value)
    notebook.until(lambda: revision(canvas) > seen)

    start = time.monotonic()
    page.locator(f"{TRAIN} .vq-stop").click()
    notebook.until(lambda: not progress.count(), "the progress bar is gone")
    measured(f"trainings: stopped after {time.monotonic() - start:.2f} s")
    notebook.until(lambda: rows(notebook).get("by hand") == "stopped", "a row of a stopped run")
    assert 0 < notebook.kernel("trainings.run('by hand').summary['steps']") < 5000
    page.locator(TRAIN).screenshot(path=pictures / "trainings.png")


def test_a_run_s_settings_are_restored(notebook, canvas):
    notebook.press(f"{TRAIN} .vq-decay", "Home")
    notebook.until(lambda: notebook.readout(f"{TRAIN} .vq-decay") == 0)
    notebook.page.get_by_role("button", name="Restore by hand").click()
    notebook.until(lambda: notebook.readout(f"{TRAIN} .vq-decay") > 0)


def test_a_setting_that_cannot_be_is_said_beside_its_control(notebook, canvas):
    field = notebook.page.locator(f"{TRAIN} input[type=text]")
    field.fill("no/name")
    field.press("Tab")
    wrong = notebook.page.locator(f"{TRAIN} .vq-error")
    notebook.until(lambda: wrong.count() > 0)
    assert notebook.page.locator(f"{TRAIN} .vq-train").is_disabled()
    field.fill("")
    field.press("Tab")
    notebook.until(lambda: wrong.count() == 0)
