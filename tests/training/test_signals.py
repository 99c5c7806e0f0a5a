"""Signals (n, channels, time): read, refused, standardised, trained."""

import json

import numpy as np
import pytest
import torch

from tests.training.tiny_training import assert_same_run, quiet, same_bits, tiny
from vqlib import Run, TrainConfig, cli
from vqlib.training import data, experiments
from vqlib.training.config import STRIDE
from vqlib.training.model import build_model, tokenize
from vqlib.training.trainer import Trainer

RNG = np.random.default_rng(0)
UNITS = np.array([[3e-6], [500.0]]), np.array([[1e-4], [-2e3]])  # scale and offset of two channels
SIGNALS = RNG.standard_normal((40, 2, 16)).cumsum(axis=-1) * UNITS[0] + UNITS[1]


def load(path, **options):
    return data.load(dataset_dir=path, dataset_kind="signals", **options)


def saved(path, array):
    np.save(path, array, allow_pickle=True)
    return path


def all_of(split):
    return split.batch(range(len(split)))


@pytest.fixture
def file(tmp_path):
    return saved(tmp_path / "mine.npy", SIGNALS)


# --- read ---


def test_each_channel_is_standardised_by_its_training_part_alone(file):
    signals = load(file)
    assert (signals.channels, signals.size) == (2, (16,))
    assert (len(signals.train), len(signals.val)) == (36, 4)
    train = SIGNALS[signals.train.rows]
    mean, scale = train.mean(axis=(0, 2)), train.std(axis=(0, 2))
    assert np.allclose(signals.scaling.mean, mean) and np.allclose(signals.scaling.scale, scale)
    for split in (signals.train, signals.val):
        expected = (SIGNALS[split.rows] - mean[:, None]) / scale[:, None]
        assert all_of(split).dtype == torch.float32
        assert np.allclose(all_of(split), expected, atol=1e-4)
        assert torch.equal(split[1], all_of(split)[1])
    assert not np.allclose(all_of(signals.val).mean(dim=(0, 2)), 0, atol=1e-3)


def test_other_validation_signals_change_no_training_signal(tmp_path):
    saved(tmp_path / "train.npy", SIGNALS[:30])
    saved(tmp_path / "val.npy", SIGNALS[30:])
    before = load(tmp_path)
    saved(tmp_path / "val.npy", 100 * SIGNALS[30:])
    after = load(tmp_path)
    assert torch.equal(all_of(before.train), all_of(after.train))
    assert before.checksum != after.checksum


@pytest.mark.parametrize("scale", ["float16", "float32", ">f8"])
def test_every_float_will_do(tmp_path, scale):
    array = RNG.standard_normal((10, 3, 12)).astype(scale)
    signals = load(saved(tmp_path / "mine.npy", array))
    assert torch.isfinite(all_of(signals.train)).all() and signals.channels == 3


def test_the_scaling_does_not_depend_on_how_many_are_read_at_once(file, monkeypatch):
    whole = load(file).scaling
    monkeypatch.setattr("vqlib.training.signals.SCAN_ITEMS", 70)
    parts = load(file).scaling
    assert np.allclose(whole, parts, rtol=1e-12)


def test_npy_is_mapped_not_loaded(file):
    assert isinstance(load(file).train.samples, np.memmap)


def test_time_is_cut_at_its_end_to_a_multiple_of_the_stride_and_that_is_said(tmp_path):
    path = saved(tmp_path / "mine.npy", SIGNALS[:, :, :15])
    with pytest.warns(UserWarning, match="15 samples are cut at their end to 12, a multiple of 4"):
        signals = load(path)
    whole = signals.train.samples[signals.train.rows[0], :, :12]
    mean, scale = (values[:, None] for values in signals.scaling)
    assert signals.size == (12,) and np.allclose(
        signals.train[0], (whole - mean) / scale, atol=1e-4
    )


def test_a_constant_channel_is_centred(tmp_path):
    array = SIGNALS.copy()
    array[:, 0] = 0.1
    signals = load(saved(tmp_path / "mine.npy", array))
    assert signals.scaling.scale[0] == 1
    assert all_of(signals.val)[:, 0].abs().max() < 1e-6


def test_axes_that_look_swapped_are_said(tmp_path):
    path = saved(tmp_path / "mine.npy", SIGNALS.transpose(0, 2, 1).repeat(5, axis=2))
    with pytest.warns(UserWarning, match=r"as 16 channels of 10 samples; .* swap the last two"):
        load(path)


# --- refused, in one line ---


def holed(value):
    array = SIGNALS.copy()
    array[-1, 1, 3] = value
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (holed(np.nan), "signal 39, channel 1, sample 3 is nan"),
        (holed(-np.inf), "signal 39, channel 1, sample 3 is -inf"),
        (np.zeros((9, 2, 16), np.int16), "floats of shape .*; found int16, so convert it first"),
        (np.zeros((9, 2, 16), np.uint8), "floats of shape .*; found uint8"),
        (np.zeros((9, 2, 16), complex), "floats of shape .*; found complex128"),
        (np.zeros((9, 2, 16), bool), "floats of shape .*; found bool"),
        (np.zeros(16), r"floats of shape \(n, channels, time\); found shape \(16,\)"),
        (np.zeros((9, 16)), r"found shape \(9, 16\)"),
        (np.zeros((9, 1, 16, 16)), r"found shape \(9, 1, 16, 16\)"),
        (np.zeros((9, 0, 16)), "an empty split"),
        (np.zeros((0, 2, 16)), "an empty split"),
        (np.zeros((9, 2, 7)), "signals of 7 samples are too short; expected at least 8"),
        (np.array([SIGNALS, None], dtype=object), "cannot be read as a .npy array"),
        (np.full((9, 2, 16), 3.5), "no channel of the training signals ever changes"),
        (1e300 * RNG.standard_normal((9, 2, 16)), r"values up to \d\.\d+e\+300 are too large"),
        (SIGNALS[:1], "1 signal cannot be split into training and validation"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*swap the last two axes")
def test_what_is_no_signal_is_refused(tmp_path, monkeypatch, array, message):
    monkeypatch.setattr("vqlib.training.signals.SCAN_ITEMS", 70)
    with pytest.raises(ValueError, match=message) as caught:
        load(saved(tmp_path / "mine.npy", array))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_different_signals_in_train_and_val_are_refused(tmp_path):
    np.savez(tmp_path / "m.npz", train=SIGNALS, val=SIGNALS[:, :1])
    with pytest.raises(ValueError, match=r"different signals: .*\(40, 2, 16\) and \(40, 1, 16\)"):
        load(tmp_path / "m.npz")


def test_a_folder_of_pictures_holds_no_signals(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds no \.npy or \.npz array; signals are floats"):
        load(tmp_path)


def test_signals_taken_for_pictures_are_told_of_the_setting(tmp_path, file):
    with pytest.raises(ValueError, match=r"if these are signals .*, set dataset_kind to 'signals'"):
        data.load(dataset_dir=file)  # values out of [0, 1]
    path = saved(tmp_path / "unit.npy", RNG.random((20, 8, 32)))
    with pytest.warns(UserWarning, match=r"grey pictures .*set dataset_kind to 'signals'"):
        assert data.load(dataset_dir=path).size == (8, 32)
    with pytest.raises(ValueError, match="dataset_kind must be one of 'pictures', 'signals'"):
        data.load(dataset_dir=path, dataset_kind="sounds")


# --- built in ---


def test_eeg_is_matplotlibs_recording_with_no_sample_in_both_splits():
    eeg = data.load("eeg")
    assert (eeg.channels, eeg.size) == (1, (data.EEG_WINDOW,))
    entry = data.manifest()["eeg"]
    start, end = entry["train"][1], entry["val"][0]
    assert entry["train"][0] == 0 and start <= end and entry["val"][1] == entry["samples"]
    recording = np.frombuffer(data._shipped_bytes(entry)).reshape(entry["samples"], -1).T
    train, val = eeg.train.samples[:, 0], eeg.val.samples[:, 0]
    length = entry["val"][1] - entry["val"][0]
    assert np.array_equal(val.reshape(4, length), recording[:, -length:])
    assert np.array_equal(train[0], recording[0, :64]) and np.array_equal(
        train[1], recording[0, 1:65]
    )
    assert not np.isin(train, val).any()


def test_the_readme_states_the_counts_of_eeg():
    eeg = data.load("eeg")
    text = (data.places.PARENT / "data" / "README.md").read_text()
    assert f"{len(eeg.train):,} training and {len(eeg.val)} validation windows" in text


# --- the model ---


def test_the_model_of_signals_is_of_the_same_design():
    config = tiny()
    flat, deep = build_model(config, 3, dims=1), build_model(config, 3)
    for one, two in zip(flat.encoder, deep.encoder, strict=True):
        if isinstance(one, torch.nn.Conv1d):
            assert one.out_channels == two.out_channels and one.stride == two.stride[:1]
    x = torch.randn(2, 3, 24)
    out = flat(x)
    assert out.reconstruction.shape == x.shape
    assert out.indices.shape == (2, 24 // STRIDE) and out.encoded.shape == (2, 6, config.dim)
    assert torch.equal(tokenize(flat, x), flat.eval()(x).indices)
    with pytest.raises(ValueError, match=r"signals must have shape \(B, 3, T\) with T a multiple"):
        flat(torch.randn(2, 3, 23))
    with pytest.raises(ValueError, match=r"signals must have shape \(B, 3, T\)"):
        flat(torch.randn(2, 3, 24, 24))


# --- trained ---


def config_of(file, **changes) -> TrainConfig:
    return tiny(dataset_dir=str(file), dataset_kind="signals", **changes)


def test_a_run_on_signals_is_kept_read_back_and_resumed_to_the_bit(file, tmp_path):
    config, folder = config_of(file), tmp_path / "out"
    stopping = [lambda trainer: trainer.stop() if trainer.step == 7 else None]
    assert quiet(config, folder, callbacks=stopping).summary["stopped"]
    resumed = quiet(config, folder, resume=True)
    assert_same_run(resumed, quiet(config))
    read = Run.load(folder)
    assert_same_run(read, resumed)
    assert read.summary["tokens_per_step"] == 16 * 16 // STRIDE
    given = data.of(*config.source)
    raw = torch.from_numpy(SIGNALS[given.val.rows])
    assert torch.allclose(read.model.standardise(raw), all_of(given.val), atol=1e-6)


def test_a_run_on_signals_goes_through_the_cache(file, tmp_path, monkeypatch):
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path / "cache"))
    config = config_of(file, steps=2)
    assert_same_run(experiments.cached_run(config), experiments.cached_run(config))
    key = experiments.run_key(config)
    saved(file, 2 * SIGNALS)
    assert experiments.run_key(config) != key


def test_training_learns_the_signal():
    trainer = Trainer(tiny(dataset="eeg", batch_size=64, steps=150, learning_rate=3e-3))
    run = trainer.run(progress=False)
    loss = run.split("train")["recon_loss"]
    assert loss.iloc[-1] < 0.5 < loss.iloc[0]  # 1 is the error of saying the mean


def test_vqlib_train_takes_signals(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = (
        f"train --dataset_dir {file} --dataset_kind signals --batch_size 8 --steps 2 --no-progress"
    )
    assert cli.main(line.split()) == 0
    assert f"2 steps on {file}" in capsys.readouterr().out
    saved(file, SIGNALS[0])
    assert cli.main(line.split()) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and "signals are floats of shape (n, channels, time)" in error[0]


def test_settings_written_before_there_were_signals_resume(tmp_path):
    config = tiny(steps=2)
    quiet(config, tmp_path)
    file = tmp_path / "config.json"
    old = json.loads(file.read_text())
    del old["dataset_kind"]
    file.write_text(json.dumps(old))
    assert Run.load(tmp_path).config == config
    resumed = quiet(tiny(steps=4), tmp_path, resume=True)
    assert same_bits(resumed.model.state_dict(), quiet(tiny(steps=4)).model.state_dict())
