"""Controls: values, units, complaints, and one telling for one move."""

import ipywidgets as widgets
import pytest

from vqlib.playground import Choice, Panel, Slider, Switch
from vqlib.quantization.ranges import SettingsError

CONTROLS = [
    Slider("decay", "decay", 0.9, 0, 1, 0.005, "of the old", "Memory."),
    Slider("size", "codes", 64, 2, 512, 1, "codes", "How many."),
    Slider("rate", "rate", 1e-3, 1e-5, 1e-1, 0.1, "a step", "Of learning.", log=True),
    Choice("donors", "donors", "top", {"the top": "top", "any": "batch"}, "Whose."),
    Switch("freeze", "freeze", False, "Stand still."),
]


@pytest.fixture
def panel():
    return Panel(CONTROLS, "Settings")


@pytest.fixture
def heard(panel):
    names = []
    panel.observe(names.append)
    return names


def test_values_at_first(panel):
    expected = {"decay": 0.9, "size": 64, "rate": 1e-3, "donors": "top", "freeze": False}
    assert panel.values == pytest.approx(expected)


def test_every_control_has_a_tooltip_a_unit_and_a_typed_field(panel):
    for name, field in panel.fields.items():
        assert field.tooltip == panel.controls[name].help
        assert field.description == panel.controls[name].label
    assert all(panel.fields[n].readout for n in ("decay", "size", "rate"))
    units = [w.value for row in panel.widget.children[1:] for w in row.children[1:2]]
    assert "of the old" in units


def test_moving_a_widget_is_heard(panel, heard):
    panel.fields["decay"].value = 0.5
    assert heard == [{"decay"}]


def test_several_are_told_at_once(panel, heard):
    panel.set(decay=0.5, donors="batch", freeze=True)
    assert heard == [{"decay", "donors", "freeze"}]
    panel.set(decay=0.5)  # no move
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("decai", 0.5, "did you mean `decay`"),
        ("decay", 1.5, "from 0 to 1, got 1.5"),
        ("decay", float("nan"), "from 0 to 1"),
        ("decay", True, "a number"),
        ("decay", "0.5", "a number"),
        ("size", 2.5, "whole number from .* got 2.5"),
        ("rate", 1.0, "from 1e-05 to 0.1"),
        ("donors", "all", "'top', 'batch'"),
        ("freeze", 1, "True or False"),
    ],
)
def test_a_wrong_value_moves_nothing(panel, heard, name, value, words):
    before = panel.values
    with pytest.raises(ValueError, match=words) as caught:
        panel.set(freeze=True, **{name: value}) if name != "freeze" else panel.set(freeze=value)
    assert panel.values == before and heard == []
    if name in panel.controls:
        assert caught.value.field == name


def test_an_exception_in_a_listener_reaches_whoever_moved(panel):
    panel.observe(lambda names: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        panel.set(decay=0.1)
    with pytest.raises(ZeroDivisionError):
        panel.fields["decay"].value = 0.2
    with pytest.raises(ZeroDivisionError):  # and the next move is heard again
        panel.set(decay=0.3)


def test_complaints_stand_beside_their_control(panel):
    assert panel.complain_of(SettingsError("too large <here>", "decay"))
    assert panel.complaints == {"decay": "too large <here>"}
    assert not panel.complain_of(SettingsError("something else"))
    assert not panel.complain_of(ValueError("size is only a word of this sentence"))
    panel.note("size", "a note is no complaint")
    assert list(panel.complaints) == ["decay"]
    panel.complain("decay", "")
    assert panel.complaints == {}


def test_a_control_can_be_hidden(panel):
    panel.show("rate", False)
    (row,) = [r for r in panel.widget.children if "vq-rate" in r._dom_classes]
    assert row.layout.display == "none"
    panel.show("rate", True)
    assert row.layout.display is None


def test_whole_numbers_stay_whole(panel):
    panel.set(size=100.0)
    assert panel.values["size"] == 100 and isinstance(panel.values["size"], int)
    assert isinstance(panel.fields["size"], widgets.IntSlider)


@pytest.mark.parametrize(("unit", "text"), [("", "Help."), ("steps", "")])
def test_a_slider_without_unit_or_tooltip_is_refused(unit, text):
    with pytest.raises(ValueError, match="unit and a help text"):
        Slider("n", "n", 1, 0, 2, 1, unit, text)
