"""vqlib.config: every field is checked, and the message says what to do."""

import math
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import torch

from tests.training.tiny_training import tiny
from vqlib import DeadCodeReset, TrainConfig
from vqlib.quantization.ranges import Range, SettingsError, hints
from vqlib.training.config import steps_of
from vqlib.training.model import build_model

TEXTS = {"dataset", "dataset_dir", "dataset_kind", "device", "reset_donors", "variant"}
SWITCHES = {"kmeans_init", "reset_relative", "reset_distinct"}
RANGES: dict[str, Range] = {
    name: hint.__metadata__[0]
    for name, hint in hints(TrainConfig).items()
    if hasattr(hint, "__metadata__")
}


def test_every_field_is_checked():
    assert set(RANGES) | TEXTS | SWITCHES == {f.name for f in fields(TrainConfig)}


def test_the_defaults_are_the_guides_setting():
    c = TrainConfig()
    assert (c.batch_size, c.codebook_size, c.decay, c.beta) == (32, 512, 0.9, 0.25)
    assert c.kmeans_init and c.reset() == DeadCodeReset()


@pytest.mark.parametrize("name", RANGES)
def test_a_number_out_of_range_or_of_another_kind_is_named_with_its_range(name):
    low, high, above, _ = RANGES[name]
    wrong = [low - 1, high * 2 + 1, math.nan, math.inf, "7", True, [1]]
    if above:
        wrong.append(low)
    if getattr(TrainConfig, name) is not None:
        wrong.append(None)
    for value in wrong:
        with pytest.raises(SettingsError) as caught:
            TrainConfig(**{name: value})
        message = str(caught.value)
        assert caught.value.field == name
        assert message.startswith(f"{name} must be a ") and message.endswith(f"got {value!r}")
        assert str(RANGES[name]) in message


@pytest.mark.parametrize("name", ["batch_size", "steps", "reset_interval", "seed", "threads"])
def test_whole_numbers_must_be_whole(name):
    with pytest.raises(SettingsError, match=r"a whole number .* got 2\.5") as caught:
        TrainConfig(**{name: 2.5})
    assert caught.value.field == name


@pytest.mark.parametrize("name", sorted(SWITCHES))
def test_switches_are_true_or_false(name):
    with pytest.raises(SettingsError) as caught:
        TrainConfig(**{name: "no"})
    assert caught.value.field == name and "'no'" in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": "gpu"}, "device must be one of 'auto', 'cpu', 'cuda', got 'gpu'"),
        ({"reset_donors": "best"}, "reset_donors must be one of .*'most_used'.* got 'best'"),
        ({"image_size": 30}, "image_size must be a multiple of 4, .* got 30; try 28 or 32"),
        ({"reset_refill": 0.5}, r"refill must be above threshold \(1.0\)"),
        ({"variant": "forgets-the-counts"}, "did you mean `forgets-the-count`"),
    ],
)
def test_other_wrong_settings(wrong, message):
    with pytest.raises(SettingsError, match=message) as caught:
        TrainConfig(**wrong)
    assert [caught.value.field] == list(wrong)


def test_a_config_cannot_be_changed_behind_its_checks():
    with pytest.raises(AttributeError):
        TrainConfig().decay = 2


def test_the_reset_gets_each_of_its_settings():
    c = TrainConfig(
        dead_code_threshold=0.1,
        reset_relative=True,
        reset_donors="usage",
        reset_interval=5,
        reset_refill=1.0,
        reset_distinct=True,
    )
    assert c.reset() == DeadCodeReset(0.1, True, "usage", 5, 1.0, True)
    assert TrainConfig(dead_code_threshold=0).reset() is None


def test_the_reset_is_built_once_a_run():
    c = TrainConfig()
    assert build_model(c).quantizer.reset is c.reset() is c.reset()


def test_round_trip_through_plain_values():
    c = tiny(reset_refill=3.0, freeze_encoder_at=0)
    assert TrainConfig.from_dict(c.to_dict()) == c and c.to_dict() == asdict(c)
    with pytest.raises(ValueError, match=r"unknown settings \['decya'\]"):
        TrainConfig.from_dict({"decya": 0.9})


def test_a_path_may_be_given_as_a_path():
    c = TrainConfig(dataset_dir=Path("pictures"))
    assert c.dataset_dir == "pictures" and c == TrainConfig(dataset_dir="pictures")


def test_the_rate_rises_by_its_power_and_then_stays():
    c = TrainConfig(learning_rate=0.1, warmup_steps=4, warmup_power=2.0)
    assert [c.rate(step, 9) for step in range(6)] == pytest.approx(
        [0.1 / 16, 0.1 / 4, 0.9 / 16, 0.1, 0.1, 0.1]
    )
    assert TrainConfig(learning_rate=0.1, warmup_steps=0).rate(0, 9) == 0.1


def test_the_rate_falls_at_the_end_where_a_cooldown_is_asked_for():
    c = TrainConfig(learning_rate=0.1, warmup_steps=0, cooldown_steps=4)
    assert [c.rate(step, 8) for step in range(8)] == pytest.approx(
        [0.1, 0.1, 0.1, 0.1, 0.1, 0.075, 0.05, 0.025]
    )


def test_steps_are_given_or_follow_from_whole_batches():
    assert steps_of(TrainConfig(batch_size=32, epochs=3), pictures=100) == 9
    assert steps_of(TrainConfig(batch_size=32, epochs=3, steps=7), pictures=100) == 7
    assert steps_of(TrainConfig(batch_size=100), pictures=100) == 1
    with pytest.raises(SettingsError, match="101 is larger than the training set of 100") as caught:
        steps_of(TrainConfig(batch_size=101), pictures=100)
    assert caught.value.field == "batch_size"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA card")
def test_cuda_where_there_is_none():
    assert TrainConfig(device="auto").resolved_device() == torch.device("cpu")
    with pytest.raises(ValueError, match="no CUDA card; use 'cpu' or 'auto'"):
        TrainConfig(device="cuda").resolved_device()
