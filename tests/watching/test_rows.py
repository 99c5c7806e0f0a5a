"""What a watch tells others while it runs: rows and steps, in time, and without harm."""

import itertools
import json
import threading
import warnings

import pytest
import torch
from vector_quantize_pytorch import ResidualVQ

import vqlib
from tests.watching.watched_models import Autoencoder, batch, train
from vqlib.watching.rows import Listener, Thinned, merged
from vqlib.watching.track import KEEP, OutOfRange

K = 32


def ours() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(vqlib.NormEMAQuantizer(K, 16, reset=vqlib.DeadCodeReset(threshold=0.5)))


def levels() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(ResidualVQ(dim=16, codebook_size=K, num_quantizers=3))


@pytest.mark.parametrize("build", [ours, levels])
def test_the_rows_told_are_those_of_the_history(build):
    rows, model = [], build()
    with vqlib.watch(model, on_row=rows.append) as w:
        train(model, 2 * KEEP + 5, val_every=20)
    history = w.history
    assert len(rows) == len(history)
    for layer in w.layers:
        expected = history[history["layer"] == layer].to_dict("records")
        mine = [row for row in rows if row["layer"] == layer]
        assert mine == [{k: v for k, v in row.items() if v == v} for row in expected]
    json.dumps(rows, allow_nan=False)


def test_it_changes_no_bit():
    results = []
    for on_row in (None, lambda row: None):
        model = ours()
        with vqlib.watch(model, on_row=on_row):
            losses = train(model, 12, val_every=4)
        results.append((losses, model.quantizer.codebook, torch.get_rng_state()))
    (one, book, random), (other, other_book, other_random) = results
    assert one == other and torch.equal(book, other_book) and torch.equal(random, other_random)


def test_rows_come_while_it_runs_and_all_of_them_by_its_end():
    rows, model = [], ours()
    with vqlib.watch(model, on_row=rows.append) as w:
        train(model, KEEP + 2)
        told = len(rows)
        assert 0 < told < KEEP + 2
        w.catch_up()
        assert len(rows) == KEEP + 2
        train(model, 1)
    assert [row["step"] for row in rows] == list(range(1, KEEP + 4))


def test_an_exception_is_one_warning_and_training_goes_on():
    seen, model = [], ours()

    def send_to_server(row):
        seen.append(row)
        raise ConnectionError("no network")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with vqlib.watch(model, on_row=send_to_server):
            losses = train(model, 12)
    messages = [str(w.message) for w in caught if "on_row" in str(w.message)]
    assert len(messages) == 1 and len(seen) == 12 and len(losses) == 12
    assert "send_to_server) raised ConnectionError: no network" in messages[0]
    assert losses == train(ours(), 12)


def test_who_is_told_may_read_from_another_thread_and_call_the_model():
    model, read = ours(), []

    def on_row(row):
        assert not torch.is_grad_enabled()
        thread = threading.Thread(target=lambda: read.append(len(w.history)))
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
        if len(read) == 1:
            model.eval()
            model(batch(1000))
            model.train()

    with warnings.catch_warnings(), vqlib.watch(model, on_row=on_row) as w:
        warnings.simplefilter("error")
        train(model, 5)
    assert len(read) == 6  # five steps, and the evaluation that it made itself


def test_an_error_of_the_adapter_is_no_exception_of_the_listener():
    def outside(*args):
        raise OutOfRange("index 40")

    with pytest.raises(OutOfRange):
        Listener(outside, "on_row")()


def test_what_is_not_callable_is_refused():
    with pytest.raises(TypeError, match="on_row must be callable, got list"):
        vqlib.watch(ours(), on_row=[])


@pytest.mark.parametrize("build", [ours, levels])
def test_each_step_is_told_once_after_it(build):
    steps, model = [], build()
    with vqlib.watch(model) as w:
        w.tell_steps(lambda step: steps.append((step, w.steps)))
        train(model, 4, val_every=2)
        # the fourth step's evaluation has begun, so that step is over
        assert [step for step, _ in steps] == [1, 2, 3, 4]
        train(model, 1)
    assert steps == [(n, n) for n in range(1, 6)]


def test_a_resumed_watch_counts_on():
    model, rows, steps = ours(), [], []
    w = vqlib.watch(model, on_row=rows.append)
    w.tell_steps(steps.append)
    w.start(100)
    train(model, 3)
    w.stop()
    assert [row["step"] for row in rows] == steps == [101, 102, 103]


def row(step: int, **more) -> dict:
    return {"step": step, "split": "train", "used_codes": step} | more


def test_merged_rows_add_up_what_happened():
    earlier = row(1, resets=3, survived=1.0, duplicates=4, encoder_std=0.5)
    later = row(2, resets=1, survived=0.0, duplicates=2)
    assert merged(earlier, later) == {
        "step": 2,
        "split": "train",
        "used_codes": 2,
        "resets": 4,
        "survived": pytest.approx(0.75),
        "duplicates": 4,
        "encoder_std": 0.5,
    }
    assert merged(row(1), row(2, resets=5))["resets"] == 5


@pytest.mark.parametrize("length", [1, 20, 1019, 1020, 1021, 5000])
def test_thinned_rows_stay_few_and_lose_no_reset(length):
    thin = Thinned()
    for step in range(1, length + 1):
        thin.add(row(step, resets=1))
    rows = thin.rows
    assert sum(r["resets"] for r in rows) == length and rows[-1]["step"] == length
    assert [r["step"] for r in rows[:20]] == list(range(1, min(length, 20) + 1))
    assert len(rows) <= Thinned.HEAD + Thinned.MOST + 1
    gaps = {b["step"] - a["step"] for a, b in itertools.pairwise(rows[19:-1])}
    assert len(gaps) <= 1
