"""The playground: controls that act, presets, pairs on the same points, frames for the page."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vqlib.playground import Playground
from vqlib.playground.frames import TRAIL, Trails, frame, limits, words
from vqlib.playground.playground import CODEBOOK, DATA, OWN
from vqlib.playground.presets import PRESETS
from vqlib.playground.world import Setting, run
from vqlib.quantization.faults import FAULTS
from vqlib.quantization.ranges import SettingsError
from vqlib.quantization.reset import DeadCodeReset


@pytest.fixture
def play():
    return Playground(codebook_size=24, codebook_size_b=24, tokens=300)


@pytest.fixture
def sent(play, monkeypatch):
    messages = []
    monkeypatch.setattr(play.canvas, "send", lambda m, b=None: messages.append((m, b)))
    return messages


OTHER = {
    "surface": "circle",
    "tokens": 100,
    "drift": 5.0,
    "pattern": "rotate",
    "freeze": True,
    "seed": 3,
    "codebook_size": 9,
    "decay": 0.2,
    "threshold": 4.0,
    "relative": True,
    "every": 3,
    "donors": "batch",
    "refill": 20.0,
    "distinct": True,
    "start": "unbalanced",
    "variant": "forgets-the-count",
}


def test_every_control_is_tried_here():
    assert {c.name for c in (*DATA, *CODEBOOK)} - {"compare"} == set(OTHER)


@pytest.mark.parametrize("name", OTHER)
def test_no_control_does_nothing(play, name):
    """Against its twin, a world with one control moved goes another way."""
    # a reset that acts, so that those about the reset have something to change
    play.set(threshold=6.0, drift=3.0)
    if name == "relative":
        play.set(threshold=0.3)
    twin = run(play.a.setting, 25)
    play.set(**{name: OTHER[name]})
    play.reset()
    play.step(24)
    ours, theirs = play.a.quantizer, twin.quantizer
    if name == "distinct":  # points of this world are distinct already
        assert ours.reset.distinct and not theirs.reset.distinct
    else:
        assert ours.codebook.shape != theirs.codebook.shape or not torch.equal(
            ours.codebook, theirs.codebook
        )


def test_the_summary_names_what_is_set(play):
    play.set(decay=0.75, threshold=2.5, drift=3.0, pattern="shrink")
    for part in ("decay 0.75", "threshold 2.5", "drift 3 % a step (shrink)", "K 24", "300 tokens"):
        assert part in play.summary()
    play.step(9)
    assert "after 10 steps" in play.summary()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs(play, name):
    play.preset(name)
    play.step(12)
    assert play.a.step_number == 13
    if PRESETS[name].b is not None:
        assert play.b.step_number == 13
        assert torch.equal(play.a.points, play.b.points)
        assert "B: With" in play.summary()


def test_each_fault_has_its_preset():
    assert {f"fault: {name}" for name in FAULTS} <= set(PRESETS)
    for name in FAULTS:
        assert PRESETS[f"fault: {name}"].b == {"variant": name}


@pytest.mark.parametrize("name", sorted({*FAULTS} - {"ranks-draw-alone", "unseeded-draws"}))
def test_a_fault_shows_beside_the_sound_one(play, name):
    """In counts, codes, resets or the loss; except where one process cannot show it."""
    play.preset(f"fault: {name}")
    play.step(51)
    ours, theirs = play.a, play.b
    assert (
        not torch.equal(ours.quantizer.codebook, theirs.quantizer.codebook)
        or ours.resets != theirs.resets
        or ours.loss > 100 * theirs.loss
        or theirs.loss > 2 * ours.loss
    )


def test_presets_leave_nothing_of_the_last_one(play):
    play.preset("best known")
    play.preset("the guide's baseline")
    assert play.a.setting == Playground().a.setting


def test_a_move_leaves_the_preset(play):
    play._preset.value = "the guide's reset"  # as a user chooses it
    assert "jump" in play._look.value and play.a.setting.threshold == 1.0
    play.set(decay=0.8)
    assert play._preset.value == OWN and play._look.value == ""
    assert play.a.setting.decay == 0.8
    play._preset.value = "the guide's reset"  # and again
    assert play.a.setting.decay == 0.9
    play.set(speed=60)
    assert play._preset.value == "the guide's reset"


def test_equal_settings_are_equal_pictures(play):
    play.set(compare=True)
    play.step(50)
    assert torch.equal(play.a.quantizer.codebook, play.b.quantizer.codebook)


def test_b_rests_unless_compared(play):
    play.step(5)
    assert play.b.step_number == 0 or play.b.step_number < play.a.step_number
    play.set(compare=True)
    assert play.a.step_number == play.b.step_number == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"decai": 1}, "did you mean `decay`"),
        ({"decay": 7}, "from 0 to 1"),
        ({"threshold": 3.0, "refill": 2.0}, "refill must be above threshold"),
        ({"threshold_b": 3.0, "refill_b": 2.0}, "refill must be above threshold"),
    ],
)
def test_bad_settings_are_refused_and_the_world_goes_on(play, values, words):
    before = play.a.setting
    with pytest.raises(ValueError, match=words):
        play.set(**values)
    play.step()
    assert play.a.setting == before


def test_a_complaint_goes_when_it_is_mended(play):
    with pytest.raises(ValueError):
        play.set(threshold=3.0, refill=2.0)
    assert play.panels["a"].complaints.keys() == {"refill"}
    play.set(refill=5.0)
    assert play.panels["a"].complaints == {} and play.a.setting.refill == 5.0


def test_a_preset_ends_a_complaint_and_begins_once(play, monkeypatch):
    with pytest.raises(ValueError):
        play.set(threshold=3.0, refill=2.0)
    begun = []
    monkeypatch.setattr(play, "reset", lambda: begun.append(play.a.setting.threshold))
    play.preset("the guide's reset")
    assert play.panels["a"].complaints == {}
    assert begun == [1.0]


def test_ceiling_and_grace_follow_the_slider():
    assert limits(DeadCodeReset(0.0), 64, 784, 0.9)[0].startswith("0: no code")
    ceiling, grace = limits(DeadCodeReset(25.0), 64, 784, 0.9)
    assert "at most 49 %" in ceiling and "1 step " in grace
    assert "forever" in limits(DeadCodeReset(1.0), 64, 784, 1.0)[1]


# --- what the page is sent ---


def test_a_frame_holds_what_was_measured():
    world = run(Setting(codebook_size=12, tokens=200, threshold=2.0), 30)
    meta, block = frame(world, Trails())

    def array(name):
        kind, shape, offset = meta["arrays"][name]
        assert offset % 4 == 0
        flat = np.frombuffer(block, f"<{kind}", int(np.prod(shape)), offset)
        return flat.reshape(shape)

    assert np.allclose(array("points"), world.points)
    assert np.allclose(array("sizes"), world.quantizer.cluster_size)
    assert np.array_equal(array("counts"), world.counts)
    assert array("curve_utilization")[-1] == pytest.approx(world.alive)
    assert np.allclose(array("trails")[0], world.places())
    assert array("cells").max() < 12
    assert meta["threshold"] == 2.0 and meta["step"] == 30 and meta["words"] == words(world)


def test_trails_remember_moves_and_forget_at_a_jump():
    world = run(Setting(codebook_size=12, tokens=200, drift=4.0), 1)
    trails = Trails()
    for _ in range(TRAIL + 2):
        places = trails.follow(world).clone()
        world.step()
    assert (places[0] - places[-1]).norm(dim=1).max() > 0.05
    world.age[3] = 0
    assert torch.equal(trails.follow(world)[:, 3], world.places()[3].expand(TRAIL, 2))


def test_trails_begin_anew_with_the_world():
    world, trails = run(Setting(codebook_size=12, tokens=200), 1), Trails()
    trails.follow(world)
    world.change(replace(world.setting, seed=1))
    world.restart()
    world.step()
    assert torch.equal(trails.follow(world), world.places().expand(TRAIL, 12, 2))


def test_frames_do_not_grow():
    world = run(Setting(codebook_size=4, tokens=32), 400)
    length = len(frame(world, Trails())[1])
    world.step(50)
    assert len(frame(world, Trails())[1]) == length


def test_playing_answers_each_question_and_keeps_the_pace(play, sent, monkeypatch):
    clock = iter([100.0, 100.125, 100.140625, 200.0])
    monkeypatch.setattr("vqlib.playground.live.time.monotonic", lambda: next(clock))
    play.canvas._clock = 99.875
    play.set(speed=32)
    play.play()
    sent.clear()
    before = play.a.step_number
    taken = []
    for _ in range(4):
        play.canvas._hear(None, {"kind": "next"}, [])
        taken.append(play.a.step_number - before)
    assert taken == [4, 8, 8, 20]  # an eighth of a second is four steps; after a silence, twelve
    assert all(message["answer"] for message, _ in sent)
    assert [m["kind"] for m, _ in sent] == ["frame", "frame", "same", "frame"]


def test_paused_means_paused(play, sent):
    before = play.a.step_number
    play.canvas._hear(None, {"kind": "next"}, [])
    assert play.a.step_number == before and sent[-1][0]["kind"] == "same"


@pytest.mark.parametrize(("key", "moved"), [("step", 1), ("reset", 0), ("toggle", 0)])
def test_the_pages_keys(play, sent, key, moved):
    play.step(3)
    before = play.a.step_number
    play.canvas._hear(None, {"kind": key}, [])
    assert play.a.step_number == (1 if key == "reset" else before + moved)
    assert play.canvas.playing == (key == "toggle")


def test_a_broken_step_stops_the_play_and_is_said(play, sent):
    play.play()
    play.a.step = lambda count: 1 / 0
    play.canvas._clock -= 1
    with pytest.raises(ZeroDivisionError):
        play.canvas._hear(None, {"kind": "next"}, [])
    assert not play.canvas.playing
    assert sent[-1][0]["kind"] == "error" and "ZeroDivisionError" in sent[-1][0]["text"]


def test_buttons_do_what_they_say(play):
    start, step, reset = play.buttons
    step.click()
    step.click()
    assert play.a.step_number == 3
    start.click()
    assert play.canvas.playing and start.description == "Pause"
    start.click()
    assert not play.canvas.playing and start.description == "Play"
    reset.click()
    assert play.a.step_number == 1


def test_the_still_figure_shows_both(play):
    play.set(compare=True)
    play.step(30)
    figure = play.figure()
    titles = [axes.get_title() or axes.get_title("left") for axes in figure.axes]
    plt.close(figure)
    assert len(titles) == 5 and titles[0].startswith("A: K 24") and titles[1].startswith("B: K 24")


def test_what_no_control_of_the_side_can_say_is_raised(play, monkeypatch):
    def setting(side):
        raise SettingsError("too many", "tokens")  # a control of both sides' panel

    monkeypatch.setattr(play, "_setting", setting)
    with pytest.raises(SettingsError, match="too many"):
        play.set(threshold=3.0)
