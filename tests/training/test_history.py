"""vqlib.history: what each column measures, from hand-made steps."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

import vqlib
from tests.training.tiny_training import tiny
from vqlib.quantization import usage
from vqlib.training.history import (
    COLUMNS,
    DRIFT_EVERY,
    Recorder,
    cosine_error,
    measure,
    survival_horizon,
)
from vqlib.training.model import Output, build_model
from vqlib.training.trainer import Trainer

CODES, DIM = 8, 4


class Model:
    """Encodes any picture to one direction, which the test turns."""

    def __init__(self):
        self.degrees, self.quantizer = 0.0, SimpleNamespace(last_reset=None)

    def encode(self, pictures):
        angle = math.radians(self.degrees)
        direction = torch.tensor([math.cos(angle), math.sin(angle), 0.0, 0.0])
        return direction.expand(len(pictures), 2, 2, DIM) * 3

    def reset(self, *codes):
        self.quantizer.last_reset = SimpleNamespace(codes=torch.tensor(codes)) if codes else None


def output(codes=(0, 1, 2, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    encoded = torch.randn(1, 2, len(codes) // 2, DIM, generator=generator)
    quantized = F.normalize(torch.randn(encoded.shape, generator=generator), dim=-1)
    indices = torch.tensor(codes).reshape(1, 2, -1)
    return Output(
        torch.zeros(1, 1, 8, 8), indices, encoded, quantized, torch.tensor(0.3), torch.tensor(0.2)
    )


def recorder(**changes):
    config = tiny(codebook_size=CODES, dim=DIM, **changes)
    return Recorder(config, tokens=4, probe=torch.zeros(2, 1, 8, 8))


def test_rows_have_the_documented_columns_in_their_order():
    r = recorder()
    r.train_step(1, output(), Model(), lr=0.01)
    assert list(r.history().columns) == list(COLUMNS)
    assert list(recorder().history().columns) == list(COLUMNS)  # even where there is no row
    assert all(column.unit and column.window and column.meaning for column in COLUMNS.values())


def test_a_train_row_measures_its_own_step():
    r, out = recorder(), output([0, 0, 0, 5])
    r.train_step(1, out, Model(), lr=0.01)
    row = r.rows[0]
    assert (row["step"], row["split"], row["lr"]) == (1, "train", 0.01)
    assert row["used_codes"] == 2 and row["utilization"] == 0.25 and row["window_tokens"] == 4
    assert row["top_code_ratio"] == 3 / 4 * CODES
    assert row["perplexity"] == pytest.approx(usage.perplexity([3, 1]))
    assert row["uniform_utilization"] == usage.uniform_utilization(CODES, 4)
    assert row["recon_loss"] == pytest.approx(0.3) and row["commit_loss"] == pytest.approx(0.2)
    cosine = F.cosine_similarity(out.encoded.reshape(-1, DIM), out.quantized.reshape(-1, DIM))
    assert row["cosine_error"] == pytest.approx(1 - float(cosine.mean()), abs=1e-6)
    assert cosine_error(out) == pytest.approx(row["cosine_error"])


def test_encoder_columns_see_the_encoders_outputs():
    r = recorder()
    same = output(seed=1)
    same = same._replace(encoded=same.encoded[:, :1, :1].expand_as(same.encoded))
    r.train_step(1, output(), Model(), lr=0.1)
    r.train_step(2, same, Model(), lr=0.1)
    assert r.rows[0]["encoder_similarity"] < 0.9 and r.rows[0]["encoder_std"] > 0.1
    assert r.rows[1]["encoder_similarity"] == pytest.approx(1, abs=1e-5)
    assert r.rows[1]["encoder_std"] == pytest.approx(0, abs=1e-6)


def test_the_usage_window_is_the_last_steps_and_no_more():
    r = recorder(usage_window=3)
    for step, codes in enumerate([[0] * 4, [1] * 4, [2] * 4, [2] * 4, [2] * 4], start=1):
        r.train_step(step, output(codes), Model(), lr=0.1)
    assert [row["used_codes"] for row in r.rows] == [1, 2, 3, 2, 1]
    assert [row["window_tokens"] for row in r.rows] == [4, 8, 12, 12, 12]


def test_resets_add_up_between_two_rows():
    r, model = recorder(log_every=3), Model()
    for step, codes in enumerate([(1, 2), (), (1,), (), (), (7,)], start=1):
        model.reset(*codes)
        r.train_step(step, output(), model, lr=0.1)
    assert [row["step"] for row in r.rows] == [3, 6]
    assert [row["resets"] for row in r.rows] == [3, 1]
    assert [row["re_resets"] for row in r.rows] == [1, 0]


def test_survival_is_told_when_its_verdict_falls_due():
    r, model = recorder(), Model()  # threshold 0.5 at decay 0.9: grace 11, horizon 22
    for step in range(1, 25):
        model.reset(*((0, 7) if step == 2 else ()))
        r.train_step(step, output(), model, lr=0.1)
    survived = [row["survived"] for row in r.rows]
    assert survived[23] == 0.5  # code 0 is hit at every step, code 7 never
    assert all(math.isnan(value) for value in survived[:23])


@pytest.mark.parametrize(
    ("changes", "horizon"),
    [
        ({"dead_code_threshold": 0.5}, 22),
        ({"dead_code_threshold": 1.0}, 14),
        ({"dead_code_threshold": 5.0}, 10),
        ({"dead_code_threshold": 0.0}, 10),
    ],
)
def test_the_survival_horizon_is_twice_the_grace_and_at_least_10(changes, horizon):
    assert survival_horizon(tiny(**changes), tokens=64) == horizon


def test_mature_utilization_leaves_out_codes_younger_than_the_grace():
    r, model = recorder(dead_code_threshold=1.0), Model()  # grace 7
    for step in range(1, 12):
        model.reset(*((0, 1) if step == 2 else ()))
        r.train_step(step, output(), model, lr=0.1)
    mature = [row["mature_utilization"] for row in r.rows]
    assert mature == [4 / 8] + [2 / 8] * 7 + [4 / 8] * 3  # young at steps 2 to 8


def test_drift_is_the_angle_a_step_since_the_last_look():
    r, model = recorder(), Model()
    for step in range(1, 3 * DRIFT_EVERY + 1):
        model.degrees += 0.0 if step <= DRIFT_EVERY else 0.002 if step <= 2 * DRIFT_EVERY else 9.0
        r.train_step(step, output(), model, lr=0.1)
    seen = {row["step"]: row["drift"] for row in r.rows if not math.isnan(row["drift"])}
    assert seen == {
        2 * DRIFT_EVERY: pytest.approx(0.002, rel=1e-2),
        3 * DRIFT_EVERY: pytest.approx(9.0),
    }


def test_a_row_carries_the_last_look_though_they_do_not_fall_together():
    r, model = recorder(log_every=4), Model()
    for step in range(1, 13):
        model.degrees += 1.0
        r.train_step(step, output(), model, lr=0.1)
    assert [row["drift"] for row in r.rows] == [
        pytest.approx(math.nan, nan_ok=True),
        pytest.approx(math.nan, nan_ok=True),
        pytest.approx(1.0, rel=1e-4),
    ]


def test_a_validation_row():
    r = recorder()
    r.val_row(3, torch.tensor([5, 0, 5, 0, 0, 0, 0, 0]), {"recon_loss": 0.5})
    row = r.history().iloc[0]
    assert (row["split"], row["used_codes"], row["window_tokens"]) == ("val", 2, 10)
    assert row["mature_utilization"] == row["utilization"] == 0.25
    assert row["recon_loss"] == 0.5 and math.isnan(row["resets"]) and math.isnan(row["lr"])


def test_a_recorder_goes_on_from_its_state_whatever_it_has_seen_since():
    first, other, model = recorder(usage_window=4), recorder(usage_window=4), Model()
    steps = [(output([s % 8] * 4, seed=s), s) for s in range(1, 40)]

    def feed(r, steps):
        for out, step in steps:
            model.degrees = step * 1.5
            model.reset(*((step % 8, 7) if step % 6 == 0 else ()))
            r.train_step(step, out, model, lr=0.1)

    feed(first, steps[:2])
    first.val_row(2, torch.arange(8), {"recon_loss": 0.1})
    feed(other, steps)  # another past, to be forgotten
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    other.load_state_dict(state)
    feed(first, steps[2:]), feed(other, steps[2:])
    assert other.history().to_csv() == first.history().to_csv()
    assert {n: t.tolist() for n, t in other.ledger.cohorts.items()} == {
        n: t.tolist() for n, t in first.ledger.cohorts.items()
    }
    assert other.ledger.older_than(3).tolist() == first.ledger.older_than(3).tolist()


def test_measuring_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    recorder().train_step(5, output(), Model(), lr=0.1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_watch_sees_the_same_codebook():
    trainer = Trainer(tiny(codebook_size=64, steps=40, val_every=10, dead_code_threshold=1.0))
    with vqlib.watch(trainer.model) as w:
        run = trainer.run(progress=False)
    shared = list(COLUMNS)[: list(COLUMNS).index("survived") + 1]
    shared += ["duplicates", "longest_code", "eval_change"]
    assert run.history["survived"].max() > 0
    pd.testing.assert_frame_equal(w.history[shared], run.history[shared], check_dtype=False)


# --- a validation pass ---


def test_a_validation_measures_lag_and_how_far_dead_codes_lie():
    config = tiny(codebook_size=24, dim=6)
    model = build_model(config, channels=1)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(70, 1, 8, 8, generator=generator)  # more than one batch of validation
    model.encoder[-1].weight.data *= 30  # far from its bias, so that outputs differ in length
    model.train()(pictures[:8])
    model.quantizer.codebook[::2] *= -1  # far from all outputs: dead
    counts, averages = measure(model, Pictures(pictures), lambda x: x)
    with torch.no_grad():
        outputs = F.normalize(model.encode(pictures).reshape(-1, 6), dim=-1)
    codes, lags, distances = (outputs @ model.quantizer.codebook.T).argmax(dim=-1), [], []
    for k, code in enumerate(model.quantizer.codebook):
        mine = outputs[codes == k]
        if len(mine):
            lags.append(degrees(mine.sum(dim=0), code))
        else:
            distances.append(min(degrees(x, code) for x in outputs))
    assert len(distances) == int((counts == 0).sum()) > 0
    assert averages["lag"] == pytest.approx(sum(lags) / len(lags), rel=1e-4)
    assert averages["dead_distance"] == pytest.approx(sum(distances) / len(distances), rel=1e-4)


class Pictures:
    def __init__(self, tensor):
        self.tensor = tensor

    def __len__(self):
        return len(self.tensor)

    def batch(self, rows):
        return self.tensor[rows]


def degrees(a, b):
    return math.degrees(math.acos(float(F.cosine_similarity(a.double(), b.double(), dim=0))))


def test_ranks_and_the_balance_are_recorded_now_and_then():
    run = vqlib.train(tiny(steps=20, val_every=10), progress=False)
    rows, val = run.split("train"), run.split("val")
    for column in ("encoder_rank", "commit_gradient_ratio"):
        assert rows["step"][rows[column].notna()].tolist() == [10, 20]
    assert val[["code_rank", "encoder_rank"]].stack().between(1, run.config.dim).all()
    used = run.trace["val_counts"][-1] > 0
    codes = run.model.quantizer.codebook[used]
    assert val["code_rank"].iloc[-1] == pytest.approx(usage.effective_rank(codes))


def test_a_checkpoint_of_before_the_last_columns_is_read():
    r = recorder()
    r.train_step(1, output(), Model(), lr=0.01)
    state = r.state_dict()
    rows = state["rows"]
    state["rows"] = torch.cat([rows[:, :-4], rows[:, -1:]], dim=1)  # without the last three
    old = recorder()
    old.load_state_dict(state)
    assert old.rows[0]["lr"] == 0.01 and old.rows[0]["split"] == "train"
    assert list(old.history().columns) == list(COLUMNS)
    assert old.history()[list(COLUMNS)[-3:]].isna().all(axis=None)
