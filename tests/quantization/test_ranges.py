"""Ranges: beside the field, checked in one way; the error names its field."""

import json
import math
import pickle
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest

from vqlib.quantization.ranges import Range, SettingsError, check_fields, number, one_of, whole


@dataclass(frozen=True)
class Oven:
    heat: Annotated[float, Range(0, 250, above=True)] = 180.0
    trays: Annotated[int | None, Range(1)] = None
    mode: Literal["top", "fan"] = "fan"
    light: bool = True
    name: str = ""

    def __post_init__(self):
        check_fields(self)


@pytest.mark.parametrize(
    ("field", "wrong", "text"),
    [
        ("heat", 0, "heat must be a number above 0 and at most 250, got 0"),
        ("heat", None, "heat must be a number above 0 and at most 250, got None"),
        ("heat", math.nan, "heat must be a number above 0 and at most 250, got nan"),
        ("trays", 1.5, "trays must be a whole number of at least 1, got 1.5"),
        ("trays", True, "trays must be a whole number of at least 1, got True"),
        ("mode", "off", "mode must be one of 'top', 'fan', got 'off'"),
        ("light", 1, "light must be True or False, got 1"),
    ],
)
def test_a_wrong_value_is_refused_by_its_fields_name(field, wrong, text):
    with pytest.raises(SettingsError) as caught:
        Oven(**{field: wrong})
    assert caught.value.field == field and str(caught.value) == text


def test_numbers_of_numpy_become_plain_ones():
    oven = Oven(heat=np.float32(0.5), trays=np.int64(3))
    assert json.dumps([oven.heat, oven.trays]) == "[0.5, 3]"
    assert Oven(heat=3).heat == 3 and Oven().trays is None


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "text"),
    [
        (Range(0, 1), [0, 0.5, 1], [-0.1, 1.1, math.nan], "from 0 to 1"),
        (Range(0, 1, above=True, below=True), [0.5], [0, 1], "above 0 and below 1"),
        (Range(0, 1, below=True), [0, 0.5], [1], "of at least 0 and below 1"),
        (Range(1e-6, above=True), [1.0, 1e300], [1e-6, math.inf], "above 1e-06"),
        (Range(1, 2**24), [2**24], [0], "from 1 to 16777216"),
    ],
)
def test_a_range_and_its_words(allowed, inside, outside, text):
    assert all(n in allowed for n in inside) and not any(n in allowed for n in outside)
    assert str(allowed) == text


def test_the_error_keeps_its_field_on_its_way_between_processes():
    error = pickle.loads(pickle.dumps(SettingsError("too hot", "heat")))
    assert isinstance(error, ValueError) and (str(error), error.field) == ("too hot", "heat")


def test_single_values():
    assert number("x", 0.5, Range(0)) == 0.5 and whole("n", 2) == 2
    assert one_of("letter", "a", {"a": 1}) == "a"
    with pytest.raises(SettingsError, match="n must be a whole number of at least 8, got 7"):
        whole("n", 7, least=8)
