"""The 2-D world: our real quantizer on points that drift."""

import math
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch

from vqlib import DeadCodeReset, TrainConfig
from vqlib.playground.playground import CODEBOOK
from vqlib.playground.world import AT_THE_START, LARGEST, SMALLEST, Encoder, Setting, World, run
from vqlib.quantization.faults import FAULTS
from vqlib.quantization.quantizer import NormEMAQuantizer
from vqlib.quantization.ranges import SettingsError
from vqlib.quantization.reset import FLAGS

PLAIN = Setting(codebook_size=32, tokens=400, drift=2.0)


def mean_use(world):
    return sum(row["utilization"] for row in world.rows) / len(world.rows)


@pytest.mark.parametrize("surface", ["plane", "circle"])
def test_a_drifting_encoder_leaves_codes_behind_and_a_still_one_does_not(surface):
    still = run(replace(PLAIN, surface=surface, drift=0.0), 120)
    drifting = run(replace(PLAIN, surface=surface), 120)
    assert mean_use(still) > 0.95
    assert mean_use(drifting) < mean_use(still) - 0.2


def test_the_reset_brings_codes_back():
    before, after = run(PLAIN, 150), run(replace(PLAIN, threshold=2.0), 150)
    assert mean_use(after) > mean_use(before) + 0.2
    assert after.resets > 0 == before.resets


def test_it_is_the_real_quantizer_step_by_step():
    """The world's codebook is what NormEMAQuantizer makes of the same points."""
    world = World(PLAIN)
    alone = NormEMAQuantizer(32, 3, 0.9, reset=PLAIN.reset(), seed=0)
    for _ in range(5):
        world.step()
        alone(world._lift(world.points))
    assert torch.equal(world.quantizer.codebook, alone.codebook)
    assert torch.equal(world.quantizer.cluster_size, alone.cluster_size)


def test_one_seed_one_world():
    assert torch.equal(run(PLAIN, 20).points, run(PLAIN, 20).points)
    assert not torch.equal(run(PLAIN, 20).points, run(replace(PLAIN, seed=1), 20).points)


def test_rivals_see_the_same_points():
    rival = replace(PLAIN, codebook_size=8, threshold=3.0, variant="cold-start", start="unbalanced")
    assert torch.equal(run(PLAIN, 12).points, run(rival, 12).points)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_lives_in_it(name):
    world = run(replace(PLAIN, variant=name, threshold=1.0), 25)
    assert isinstance(world.quantizer, FAULTS[name])
    assert math.isfinite(world.loss)


def test_starts_differ():
    def spread(start):
        return run(replace(PLAIN, start=start, drift=0.0), 1).rows[-1]["perplexity"]

    assert spread("k-means") > spread("random inputs")
    assert spread("random inputs") > spread("unbalanced") > spread("random directions")


def test_a_fault_keeps_its_fault_under_another_start():
    world = World(replace(PLAIN, variant="cold-start", start="random inputs"))
    world.step()
    assert isinstance(world.quantizer, FAULTS["cold-start"])
    assert world.quantizer.cluster_size.sum() < 0.2 * PLAIN.tokens


@pytest.mark.parametrize(
    ("pattern", "moves"),
    [
        ("translate", lambda e: float((e.centre - Encoder("plane").centre).norm())),
        ("rotate", lambda e: e.angle),
        ("shrink", lambda e: 1 - e.size),
        ("spread", lambda e: e.size - 1),
    ],
)
def test_patterns_move_by_the_asked_share_of_the_radius(pattern, moves):
    encoder = Encoder("plane")
    encoder.move(pattern, 3.0)
    assert moves(encoder) == pytest.approx(0.03, rel=1e-4)


def test_an_encoder_stays_in_the_picture():
    for pattern in ("translate", "shrink", "spread"):
        encoder = Encoder("plane")
        for _ in range(500):
            encoder.move(pattern, 10.0)
        assert encoder.centre.abs().max() < 1.4
        assert SMALLEST <= encoder.size <= LARGEST


def test_a_frozen_encoder_stands_still():
    world = run(replace(PLAIN, freeze=True), 5)
    assert torch.equal(world.encoder.centre, Encoder("plane").centre)


@pytest.mark.parametrize("surface", ["plane", "circle"])
def test_cells_are_what_the_quantizer_says(surface):
    """A token's cell is the code that it is given."""
    world = run(replace(PLAIN, surface=surface), 8)
    side, reach = 400, 2.0
    labels = world.cells(side, reach)
    pixel = ((world.points / reach + 1) / 2 * side).long().clamp(0, side - 1)
    seen = labels[side - 1 - pixel[:, 1], pixel[:, 0]]
    world.quantizer.eval()
    given = world.quantizer(world._lift(world.points)).indices
    assert (seen == given).float().mean() > 0.95


def test_a_code_is_drawn_inside_its_cell():
    world = run(replace(PLAIN, drift=0.0), 30)
    side, reach = 400, 2.0
    pixel = ((world.places() / reach + 1) / 2 * side).long().clamp(0, side - 1)
    assert (world.cells(side, reach)[side - 1 - pixel[:, 1], pixel[:, 0]] == torch.arange(32)).all()


@pytest.mark.parametrize(
    ("name", "value"), [("decay", 0.5), ("threshold", 2.0), ("drift", 4.0), ("freeze", True)]
)
def test_most_settings_act_from_the_next_step_on(name, value):
    world = run(PLAIN, 10)
    codebook = world.quantizer.codebook.clone()
    assert not world.change(replace(PLAIN, **{name: value}))
    assert world.step_number == 10 and torch.equal(world.quantizer.codebook, codebook)
    changed, same = world, run(PLAIN, 10)
    changed.step(10), same.step(10)
    assert not torch.equal(changed.quantizer.codebook, same.quantizer.codebook)


@pytest.mark.parametrize("name", AT_THE_START)
def test_others_begin_anew(name):
    value = {
        "surface": "circle",
        "tokens": 64,
        "seed": 3,
        "codebook_size": 7,
        "start": "unbalanced",
        "variant": "cold-start",
    }[name]
    world = run(PLAIN, 10)
    assert world.change(replace(PLAIN, **{name: value}))
    assert world.step_number == 0


def test_what_is_remembered_of_resets():
    world = run(replace(PLAIN, threshold=4.0), 40)
    fresh = world.quantizer.last_reset
    while fresh is None:
        world.step()
        fresh = world.quantizer.last_reset
    assert (world.age[fresh.codes] == 0).all()
    assert world.resets >= len(fresh.codes)


def test_memory_is_bounded():
    assert len(run(replace(PLAIN, codebook_size=4, tokens=16), 450).rows) == 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("surface", "cube"),
        ("pattern", "jump"),
        ("start", "zeros"),
        ("donors", "mine"),
        ("tokens", 0),
        ("decay", 1.5),
        ("codebook_size", 0),
        ("drift", -1.0),
        ("refill", 0.0),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(SettingsError, match="must be") as caught:
        replace(PLAIN, **{name: value})
    assert caught.value.field == name


def test_an_unknown_variant_is_named():
    with pytest.raises(SettingsError, match="cold-start") as caught:
        replace(PLAIN, variant="cold-strat")
    assert caught.value.field == "variant"


def test_flags_sliders_and_arguments_are_one_vocabulary():
    arguments = [f.name for f in fields(DeadCodeReset)]
    assert set(FLAGS) == set(arguments) - {"top"}
    assert set(FLAGS.values()) <= {f.name for f in fields(TrainConfig)}
    assert set(FLAGS) <= {control.name for control in CODEBOOK}
    flags = SimpleNamespace(**{flag: getattr(TrainConfig(), flag) for flag in FLAGS.values()})
    assert DeadCodeReset.of(flags, FLAGS) == DeadCodeReset.of(DeadCodeReset()) == DeadCodeReset()
    flags.reset_refill = 0.5
    with pytest.raises(SettingsError, match=r"got 0\.5") as caught:
        DeadCodeReset.of(flags, FLAGS)
    assert caught.value.field == "reset_refill"
