"""The command `train`: its flags, what it prints, how it ends."""

import logging
import signal
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tests.training.tiny_training import TINY, tiny
from vqlib import Run, TrainConfig, cli
from vqlib.cli import trainings
from vqlib.training import trainer

QUICK = [part for name, value in TINY.items() for part in (f"--{name}", str(value))]

OTHER = {
    "dataset": "digits",
    "dataset_dir": "somewhere",
    "dataset_kind": "signals",
    "image_size": 64,
    "crops": 3,
    "val_fraction": 0.25,
    "batch_size": 7,
    "epochs": 3,
    "steps": 11,
    "codebook_size": 128,
    "dim": 16,
    "width": 24,
    "decay": 0.75,
    "beta": 0.1,
    "kmeans_init": False,
    "dead_code_threshold": 5.0,
    "reset_relative": True,
    "reset_donors": "usage",
    "reset_interval": 10,
    "reset_refill": 9.5,
    "reset_distinct": True,
    "variant": "forgets-the-count",
    "learning_rate": 0.01,
    "warmup_steps": 5,
    "warmup_power": 1.5,
    "cooldown_steps": 2,
    "momentum": 0.8,
    "weight_decay": 0.5,
    "freeze_encoder_at": 6,
    "seed": 42,
    "device": "cpu",
    "threads": 1,
    "usage_window": 4,
    "log_every": 2,
    "val_every": 9,
    "trace_every": 8,
    "checkpoint_every": 13,
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """What `vqlib.train` was asked for; nothing is trained."""
    calls = []

    def stop(config, out_dir, **more):
        calls.append((config, out_dir, more))
        raise ValueError("seen")

    monkeypatch.setattr(trainer, "train", stop)
    return calls


def quick(*more: str) -> int:
    return cli.main(["train", *QUICK, "--no-progress", *more])


# --- flags ---


def test_the_guides_command_line(asked):
    line = "train --dead_code_threshold 1.0 --dataset_dir DIR --batch_size 32 --epochs 50"
    cli.main(line.split())
    expected = TrainConfig(dead_code_threshold=1.0, dataset_dir="DIR", batch_size=32, epochs=50)
    assert asked[0][0] == expected


def test_the_guides_command_line_trains(here, capsys):
    np.save("pictures.npy", np.random.default_rng(0).integers(256, size=(80, 8, 8), dtype=np.uint8))
    line = "train --dead_code_threshold 1.0 --dataset_dir pictures.npy --batch_size 32 --epochs 2"
    with pytest.warns(UserWarning, match="tokens for 512 codes"):
        assert cli.main([*line.split(), "--no-progress"]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert Run.load(folder).summary["steps"] == 4


@pytest.mark.parametrize("mark", ["_", "-"])
def test_every_setting_is_a_flag_with_underscores_or_hyphens(asked, mark):
    assert set(OTHER) == {field.name for field in fields(TrainConfig)}
    arguments = []
    for name, value in OTHER.items():
        flag = name.replace("_", mark)
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no{mark}{flag}")
        else:
            arguments += [f"--{flag}", str(value)]
    cli.main(["train", *arguments, f"--out{mark}dir", "o", "--resume", f"--no{mark}progress"])
    assert asked == [(TrainConfig(**OTHER), Path("o"), {"resume": True, "progress": False})]
    defaults = TrainConfig().to_dict()
    assert all(value != defaults[name] for name, value in OTHER.items())


def test_without_flags_the_defaults_hold(asked):
    cli.main(["train"])
    assert asked[0][0] == TrainConfig() and asked[0][2] == {"resume": False, "progress": True}


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for name in [*OTHER, "out_dir", "resume", "progress", "verbose"]:
        assert f"--{name.replace('_', '-')}" in text
    assert "0: no reset" in " ".join(text.replace("│", " ").split())


# --- what it prints and leaves ---


def test_it_prints_the_summary_and_where_the_files_are(capsys):
    assert quick("--out_dir", "out", "--dead_code_threshold", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    run = Run.load("out")
    assert lines[0].startswith("12 steps on digits in ") and lines[0].endswith("32 codes")
    assert lines[-1] == "out"
    table = {line[:24].strip(): line[24:].replace("%", "").split() for line in lines}
    for label, column, scale in (
        ("Utilization", "utilization", 100),
        ("Perplexity", "perplexity", 1),
        ("uniform use would show", "uniform_utilization", 100),
        ("Top code ratio", "top_code_ratio", 1),
        ("Reconstruction MSE", "recon_loss", 1),
        ("Tokens counted", "window_tokens", 1),
    ):
        expected = [scale * run.split(split).iloc[-1][column] for split in ("train", "val")]
        assert [float(x) for x in table[label]] == pytest.approx(expected, rel=0.01)
    assert f"{run.summary['total_resets']} resets of dead codes (cluster_size < 1)" in lines


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--dead_code_threshold", "0"], "No resets: dead_code_threshold 0 turns them off"),
        (["--dead_code_threshold", "1e-6"], "No resets: never cluster_size < 1e-06"),
        (
            ["--dead_code_threshold", "1e-6", "--reset_relative"],
            "No resets: never cluster_size < 1e-06 x N/K",
        ),
    ],
)
def test_it_says_why_there_were_no_resets(flags, line, capsys):
    assert quick("--steps", "2", *flags) == 0
    assert line in capsys.readouterr().out.splitlines()


def test_a_history_without_training_rows_prints_too(capsys):
    assert quick("--log_every", "100") == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("Utilization")]
    assert line.split()[1] == "–" and line.endswith("%")


def test_verbose_tells_each_reset_and_leaves_logging_as_it_was(capsys):
    before = logging.getLogger("vqlib").handlers[:], logging.getLogger("vqlib").level
    assert quick("--verbose", "--progress", "--dead_code_threshold", "5", "--out_dir", "out") == 0
    told = capsys.readouterr().err.count("dead codes (cluster_size < 5.0)\n")
    assert told == (Run.load("out").split("train")["resets"] > 0).sum() > 0
    assert (logging.getLogger("vqlib").handlers, logging.getLogger("vqlib").level) == before
    quick("--dead_code_threshold", "5")
    assert "Reset" not in capsys.readouterr().err


def test_the_progress_bar_shows_utilization_and_loss(capsys):
    quick("--progress", "--steps", "30")
    err = capsys.readouterr().err
    assert "/30" in err and "utilization " in err and "loss 0." in err
    quick()
    assert capsys.readouterr().err == ""


def test_without_out_dir_each_run_gets_a_folder_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr(trainings.time, "strftime", lambda _: "2025-01-31_120000")
    folders = []
    for _ in range(2):
        assert quick("--steps", "1") == 0
        folders.append(Path(capsys.readouterr().out.splitlines()[-1]))
    assert folders == [Path("build/runs/2025-01-31_120000"), Path("build/runs/2025-01-31_120000_2")]
    assert all((folder / "summary.json").is_file() for folder in folders)


# --- how it ends ---


def unhappy(capsys, *arguments) -> tuple[int, str]:
    """Exit status and the one line on stderr."""
    status = cli.main(["train", *arguments])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return status, captured.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--decay", "2"], "decay must be a number from 0 to 1, got 2.0"),
        (["--reset_refill", "0.1"], "refill must be above threshold"),
        (["--image_size", "30"], "image_size must be a multiple of 4"),
        (["--dataset_dir", "nowhere"], "dataset_dir 'nowhere' does not exist"),
        (["--batch_size", "5000"], "batch_size 5000 is larger than the training set of 1617"),
        (["--dataset", "faces"], "unknown dataset 'faces'"),
        (["--resume"], "resume needs out_dir"),
        (["--resume", "--out_dir", "new"], "nothing to resume: new holds no config.json"),
    ],
)
def test_what_cannot_run_ends_with_2_and_one_line(flags, message, capsys, here):
    status, err = unhappy(capsys, *QUICK, *flags)
    assert status == 2 and message in err
    assert not [p for p in here.rglob("*") if p.name not in ("build", "runs")]


def test_another_run_is_not_overwritten(capsys):
    quick("--out_dir", "out", "--steps", "1")
    capsys.readouterr()
    status, err = unhappy(capsys, *QUICK, "--out_dir", "out")
    assert status == 2 and err.startswith("error: out ") and "--resume" in err


@pytest.mark.parametrize("wrong", [["--decay", "much"], ["--decya", "1"], ["--device", "gpu"]])
def test_bad_flags_end_with_2(wrong):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", *wrong])
    assert caught.value.code == 2


def test_a_divergence_ends_with_1(capsys):
    flags = ["--learning_rate", "1000", "--warmup_steps", "0", "--out_dir", "out", "--no-progress"]
    status, err = unhappy(capsys, *QUICK, *flags)
    assert status == 1 and "the loss or its gradient is not finite" in err
    assert Path("out/checkpoint.safetensors").is_file()


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(monkeypatch, capsys):
    validate = trainer.Trainer.validate

    def interrupted(trainer):
        validate(trainer)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "validate", interrupted)
        assert quick() == 130
    err = capsys.readouterr().err
    folder = next(Path("build/runs").iterdir())
    assert err.startswith(f"stopped after step 6 of 12; saved in {folder}.")
    assert quick(*err[err.index("--out_dir") :].split(" (")[0].split()) == 0  # as it says
    assert Run.load(folder).config == tiny()
    assert len(Run.load(folder).split("train")) == 12


def test_ctrl_c_at_once_tells_of_the_last_checkpoint(monkeypatch, capsys):
    def at_once(trainer):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Trainer, "validate", at_once)
    assert quick("--out_dir", "out") == 130
    err = capsys.readouterr().err
    assert "the last checkpoint is in out." in err and "--out_dir out --resume" in err
    monkeypatch.setattr(trainer, "train", lambda *_, **__: at_once(None))
    assert quick() == 130
    assert capsys.readouterr().err == "interrupted before anything was saved\n"
