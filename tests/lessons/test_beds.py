"""The two beds: same weights, pictures and order for every remedy; an encoder out of reach."""

from itertools import islice

import numpy as np
import pytest
import torch

from vqlib.lessons import beds
from vqlib.lessons.remedies import BED, REMEDIES
from vqlib.quantization import usage
from vqlib.training import data
from vqlib.training.trainer import Trainer

SHORT = {"steps": 6, "cooldown_steps": 2, "batch_size": 2}
# 392 tokens a step for 128 codes


def short(name, **changes):
    return REMEDIES[name].config(3, **SHORT | changes)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_the_model_around_a_quantizer_is_the_same_for_every_remedy():
    ours, theirs = (beds.model_of(REMEDIES[n], short(n)) for n in ("reset", "SimVQ"))
    for part in ("encoder", "decoder"):
        mine, other = (getattr(m, part).state_dict() for m in (ours, theirs))
        assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_a_seed_decides_the_order_of_the_pictures():
    pictures = data.load()
    one, again = (list(islice(beds.picture_batches(short("reset"), pictures), 3)) for _ in "ab")
    assert all(torch.equal(*pair) for pair in zip(one, again, strict=True))
    other = next(beds.picture_batches(REMEDIES["reset"].config(4, **SHORT), pictures))
    assert not torch.equal(one[0], other)


def test_a_step_is_the_trainers_step():
    """Same loss, rate and optimizer: on the same pictures the weights become the same."""
    config = short("reset", threads=1)
    trainer = Trainer(config)
    learner = beds.Learner(beds.model_of(REMEDIES["reset"], config), beds.through_model, config)
    for _ in range(config.steps):
        learner.step(trainer.data.train.batch(trainer._batch_of(trainer.step)))
        trainer._train_step()
    theirs = trainer.model.state_dict()
    for name, value in learner.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_frozen_encoder_stays():
    config = short("baseline", freeze_encoder_at=2)
    learner = beds.Learner(beds.model_of(REMEDIES["baseline"], config), beds.through_model, config)
    batches = beds.picture_batches(config, data.load())
    for _ in range(2):
        learner.step(next(batches))
    before, decoder = weights(learner.module.encoder), weights(learner.module.decoder)
    learner.step(next(batches))
    assert all(torch.equal(v, before[n]) for n, v in learner.module.encoder.state_dict().items())
    assert any(
        not torch.equal(v, decoder[n]) for n, v in learner.module.decoder.state_dict().items()
    )


def test_the_recording_is_what_the_encoder_gave_and_no_remedy_reaches_it():
    recorded = beds.recording(short("baseline"))
    assert len(recorded.latents) == SHORT["steps"]
    assert recorded.latents[0].shape == (2 * 14 * 14, BED.dim)
    first = next(beds.picture_batches(short("baseline"), data.load()))
    encoded = beds.model_of(REMEDIES["baseline"], short("baseline")).encode(first)
    torch.testing.assert_close(encoded.reshape(-1, BED.dim), recorded.latents[0])
    before = [latents.clone() for latents in recorded.latents], weights(recorded.model)
    for name in ("reset", "matched moments", "DiVeQ"):
        beds.trained("latents", name, 3, **SHORT)
    assert all(torch.equal(*pair) for pair in zip(before[0], recorded.latents, strict=True))
    assert all(torch.equal(v, before[1][n]) for n, v in recorded.model.state_dict().items())


@pytest.mark.parametrize("name", ["matched moments", "Gumbel", "SimVQ", "FSQ", "DiVeQ"])
def test_codes_that_learn_by_gradients_learn_on_the_recording(name):
    learner, *_ = beds.set_up("latents", REMEDIES[name], 3, **SHORT, learning_rate=1e-2)
    latents = beds.recording(short("baseline")).latents[0]
    learner.step(latents)
    parameters = [p.clone() for p in learner.module.parameters()]
    learner.step(latents)
    moved = zip(parameters, learner.module.parameters(), strict=True)
    assert any(not torch.equal(*pair) for pair in moved)


def test_what_acts_on_the_encoder_alone_is_refused_on_the_recording():
    assert "rotation trick" not in beds.arms("latents", REMEDIES)
    assert list(beds.arms("model", REMEDIES)) == list(REMEDIES)
    with pytest.raises(ValueError, match="latents"):
        beds.set_up("latents", REMEDIES["rotation trick"], 3, **SHORT)


def test_an_entropy_loss_is_left_out_of_the_recording_because_it_changes_nothing_there():
    config = short("entropy loss")
    latents = beds.recording(short("baseline")).latents
    books = []
    for name in ("entropy loss", "baseline"):
        quantizer = beds.model_of(REMEDIES[name], config if name != "baseline" else short(name))
        learner = beds.Learner(quantizer.quantizer, beds.alone, config)
        for batch in latents:
            learner.step(batch)
        books.append(learner.quantizer.codebook)
    assert torch.equal(*books)


@pytest.fixture(scope="module")
def reset():
    return beds.trained("latents", "reset", 3, **SHORT)


def test_what_is_examined_is_the_validation_set(reset):
    learner, model = reset
    pictures = data.load()
    found = beds.examine(model, "latents", pictures)
    with torch.no_grad():
        unit = torch.nn.functional.normalize(model.encode(pictures.val.batch(range(156))), dim=-1)
        similar = unit.reshape(-1, BED.dim) @ learner.quantizer.codebook.T
    best = similar.max(dim=1)
    counts = torch.bincount(best.indices, minlength=128)
    assert found["utilization"] == usage.utilization(counts)
    assert found["perplexity"] == pytest.approx(usage.perplexity(counts))
    assert found["error"] == pytest.approx(float((2 - 2 * best.values).mean()), rel=1e-3)
    used = learner.quantizer.codebook[counts > 0]
    assert found["effective_dimension"] == pytest.approx(usage.effective_rank(used), rel=1e-3)


def test_on_the_model_the_error_is_that_of_the_pixels():
    _, model = beds.trained("model", "baseline", 3, **SHORT)
    pictures = data.load()
    batch = pictures.val.batch(range(156))
    with torch.no_grad():
        error = float((model(batch).reconstruction - batch).square().mean())
    assert beds.examine(model, "model", pictures)["error"] == pytest.approx(error, rel=1e-4)


def test_a_loss_that_is_not_finite_is_an_error():
    learner = beds.Learner(torch.nn.Identity(), lambda *_: (torch.tensor(np.nan), None), BED)
    with pytest.raises(FloatingPointError, match="step 1"):
        learner.step(torch.zeros(1))


def test_a_slow_step_costs_more():
    class Slow(torch.nn.Module):
        def __init__(self, quantizer):
            super().__init__()
            self.quantizer = quantizer
            self.codebook_size = quantizer.codebook_size

        def forward(self, z):
            for _ in range(4):
                out = self.quantizer(z)
            return out

    learner = beds.set_up("latents", REMEDIES["baseline"], 3, **SHORT).learner
    slow = beds.Learner(Slow(learner.module), beds.alone, learner.config)
    assert beds.step_cost(slow, "latents", 3, **SHORT) > 2


def test_a_remedy_is_measured_whole():
    found = beds.measure({"bed": "latents", "remedy": "FSQ", **SHORT}, 3)
    assert set(found) == set(beds.COLUMNS)
    assert all(np.isfinite(value) for value in found.values())
