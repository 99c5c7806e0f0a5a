"""The command `sweep`: what it writes and prints, how it ends, and that it survives a kill."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from tests.torture.kill_sweep import torture
from tests.training.tiny_training import TINY
from vqlib import cli
from vqlib.training import experiments

BASE = "\n".join(
    ["[base]", *(f"{n} = {str(v).lower() if v is True else repr(v)}" for n, v in TINY.items())]
)
ARMS = f"""
seeds = [4, 2]
{BASE}
[arms.off]
decay = 0.8
[arms.on]
decay = 0.5
"""
WILD = "[arms.wild]\nlearning_rate = 1000.0\nwarmup_steps = 0\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VQLIB_JOBS", "1")
    return tmp_path


def sweep(text: str, *more: str) -> int:
    with open("arms.toml", "w") as file:
        file.write(text)
    return cli.main(["sweep", "arms.toml", "--no-progress", *more])


def test_it_writes_a_table_a_comparison_and_a_figure(here, capsys):
    assert sweep(ARMS) == 0
    out = capsys.readouterr().out
    assert out.endswith("4 of 4 runs went well\nbuild/sweeps/arms\n")
    assert "compared with: off" in out and "too few seeds for an interval" in out
    folder = here / "build" / "sweeps" / "arms"
    files = {file.name for file in folder.iterdir()}
    assert files - {".vqlib.lock"} == {
        *("sweep.json", "table.csv", "comparison.csv", "comparison.png")
    }
    table = pd.read_csv(folder / "table.csv")
    assert table[["arm", "seed"]].values.tolist() == [["off", 4], ["off", 2], ["on", 4], ["on", 2]]
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_again_it_trains_nothing_and_another_sweep_is_refused(here, capsys, monkeypatch):
    assert sweep(ARMS, "--out", "mine") == 0
    table = (here / "mine" / "table.csv").read_bytes()
    monkeypatch.setattr(experiments, "train", None)
    assert sweep(ARMS, "--out", "mine") == 0
    assert (here / "mine" / "table.csv").read_bytes() == table
    assert sweep(ARMS.replace("0.5", "0.4"), "--out", "mine") == 2
    assert "mine holds another sweep and is not overwritten" in capsys.readouterr().err
    assert (here / "mine" / "table.csv").read_bytes() == table


def test_a_run_that_fails_is_named_with_its_settings(here, capsys):
    assert sweep(ARMS + WILD, "--out", "mine") == 1
    told = capsys.readouterr()
    assert told.err.startswith(
        "failed: wild, seed 4, 2 (decay 0.9, learning_rate 1000.0, warmup_steps 0): "
    )
    assert "4 of 6 runs went well" in told.out
    problems = pd.read_csv(here / "mine" / "table.csv").set_index("arm")["problem"]
    assert problems["wild"].str.startswith("TrainingDiverged").all() and problems["on"].isna().all()


def test_if_every_run_fails_the_table_says_so(here, capsys):
    assert sweep(f"{BASE}\n{WILD}", "--out", "mine") == 1
    assert "0 of 5 runs went well" in capsys.readouterr().out
    assert not (here / "mine" / "comparison.png").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[arms.a]\ndecya = 1", "error: arms.toml: [arms.a] there is no setting `decya` - did you"),
        ("[arms", "error: arms.toml: not valid TOML"),
        ("[arms.a]\ndataset_dir = 'nowhere'", "'nowhere' does not exist"),
        ("[arms.a]\ndataset = 'fotos'", "error: unknown dataset 'fotos'"),
        ("[arms.a]\nbatch_size = 100000", "batch_size 100000 is larger than the training set"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(here, capsys, text, told):
    assert sweep(text) == 2
    assert told in capsys.readouterr().err
    assert not (here / "build").exists() and not (here / "cache").exists()


def test_a_file_that_is_not_there(capsys):
    assert cli.main(["sweep", "none.toml"]) == 2
    assert "none.toml: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--scheduler", "localhost:1"], "--scheduler is dask's; expected --backend dask"),
        (["--backend", "daks"], "daks"),
        (["--backend", "dask"], "No "),
    ],
)
def test_an_engine_that_is_not_there(here, capsys, flags, told):
    assert sweep(ARMS, *flags) == 2
    assert told in capsys.readouterr().err
    assert not list(here.glob("cache/*/summary.json"))


def test_ctrl_c_keeps_what_is_done(here):
    (here / "arms.toml").write_text(ARMS.replace("[4, 2]", "40"))
    process = subprocess.Popen(
        [sys.executable, "-m", "vqlib", "sweep", "arms.toml", "--no-progress"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(here.glob("cache/*/summary.json")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "the same command does the rest" in told, told
    kept = len(list(here.glob("cache/*/summary.json")))
    assert 0 < kept < 80


def test_a_killed_sweep_ends_in_the_identical_table(here):
    assert torture(here / "torture", kills=2, jobs=1, tell=lambda line: None) >= 1
