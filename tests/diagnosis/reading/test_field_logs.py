"""Small logs as trainers and trackers write them: each is understood, or refused with what to type.

The formats are those of public trainers; the numbers are made up.
"""
# ruff: noqa: E501 - a log's line stands on one line

import gzip
import io
import json

import numpy as np
import pandas as pd
import pytest

from vqlib import cli, diagnose
from vqlib.diagnosis import HistoryError
from vqlib.diagnosis.sources import read_all


def lines(*rows) -> str:
    return "\n".join(json.dumps(row) for row in rows) + "\n"


def shown(log, split="train", column="used_codes") -> list[float]:
    return log.rows(column, split)[column].round(6).tolist()


LABRAM = lines(
    {
        "train_lr": 2e-6,
        "train_loss": 1.9,
        "train_Unused_code": 0,
        "test_unused_code": 12,
        "epoch": 0,
    },
    {
        "train_lr": 9e-6,
        "train_loss": 1.7,
        "train_Unused_code": 4,
        "test_unused_code": 11,
        "epoch": 1,
    },
)
MAE_CONSOLE = """\
Epoch: [0]  [  0/50]  eta: 0:01:02  lr: 0.0001  loss: 2.1 (2.2)  Unused_code: 400.0  time: 1.2
Epoch: [0]  [ 20/50]  eta: 0:01:02  lr: 0.0001  loss: 2.0 (2.1)  Unused_code: 380.0  time: 1.2
Epoch: [1]  [  0/50]  eta: 0:01:02  lr: 0.0001  loss: 1.9 (2.0)  Unused_code: 300.0  time: 1.2
"""
SIMVQ = """\
[warmup] Compiling training step; this may take a minute.
step 100, total_loss: 5.18, commit_loss: 4.46, codebook_perplexity: 19.64, codebook_util: 0.0688
[ckpt] saved step=100
step 200, total_loss: 2.50, commit_loss: 1.83, codebook_perplexity: 128.6, codebook_util: 0.2654
"""
LOGGING = """\
2026-11-26 10:00:01,123 - INFO - trainer - step 100 - loss 0.5 - used codes 97/128
2026-11-26 10:00:09,456 - WARNING - trainer - slow batch: 3.2 s
2026-11-26 10:00:11,789 - INFO - trainer - step 200 - loss 0.4 - used codes 96/128
"""
BLOCKS = "100 iterations\nrecon_error: 0.050\nperplexity: 22.0\n\n200 iterations\nrecon_error: 0.04\nperplexity: 24.0\n"
BAR = "  1%| | 1/100 [00:01<01:00, usage=0.50, loss=1.0]\r  2%| | 2/100 [00:02<01:00, usage=0.25, loss=1.0]\n"
ANSI = "\x1b[32mINFO\x1b[0m epoch=3 | used codes 500/1024 | perplexity 250\nINFO epoch=4 | used codes 400/1024 | perplexity 200\n"
SPLITS_PRINTED = """\
[train] epoch 1 usage: 0.9
[val] epoch 1 usage: 0.4
[train] epoch 2 usage: 0.8
[val] epoch 2 usage: 0.3
"""
LIGHTNING = "epoch,step,train/usage,val/usage\n0,49,0.1,\n0,99,0.2,\n0,99,,0.08\n1,149,0.3,\n"
LIGHTNING_TWICE = "epoch,step,train_ppl_step,train_ppl_epoch\n0,49,40.0,\n0,99,41.0,\n0,99,,40.5\n"
WANDB = '"Step","run-1 - train/codebook_usage","run-1 - train/codebook_usage__MIN"\n"0","12.5","1"\n"50","7.25","2"\n'
TENSORBOARD = "Wall time,Step,Value\n1.0,10,0.5\n2.0,20,0.25\n"
TRAINER_STATE = json.dumps(
    {
        "best_metric": None,
        "global_step": 200,
        "log_history": [
            {"epoch": 0.1, "step": 100, "loss": 1.0, "codebook_usage": 0.1},
            {"epoch": 0.1, "step": 100, "eval_loss": 1.0, "eval_codebook_usage": 0.05},
            {"epoch": 0.2, "step": 200, "loss": 1.0, "codebook_usage": 0.2},
        ],
    }
)
NESTED = json.dumps(
    {"config": {"lr": 1}, "history": [{"it": 1, "vq": {"used": 5}}, {"it": 2, "vq": {"used": 6}}]}
)
OF_LISTS = json.dumps({"step": [1, 2], "perplexity": [3.5, 4.5], "loss": [1, 2]})
KERAS = json.dumps(
    {"loss": [1.0, 0.9], "codebook_usage": [0.5, 0.4], "val_codebook_usage": [0.3, 0.2]}
)
UNEVEN = json.dumps({"usage": [0.5, 0.4, 0.3], "val_usage": [0.2]})

FAIRSEQ = """\
2026-11-26 12:00:00 | INFO | train_inner | {"epoch": 1, "loss": "6.5", "code_perplexity": "120.5", "num_updates": "200"}
2026-11-26 12:01:00 | INFO | train_inner | {"epoch": 1, "loss": "6.1", "code_perplexity": "130.5", "num_updates": "400"}
"""
BAR_OF_EPOCH = "Epoch 0:  10%|#  | 100/1000 [00:50<07:30, loss=0.9, train/perplexity=45]\rEpoch 0:  20%|## | 200/1000 [01:50<07:30, loss=0.8, train/perplexity=46]\n"
SENTENCES = "Saving every 1000 steps\nAfter 1000 steps: 97 of 128 codes used\nAfter 2000 steps: 96 of 128 codes used\n"
ENTRIES = "Epoch 0: 931 out of 1024 codebook entries were used (90.9%)\nEpoch 1: 81 out of 1024 codebook entries were used (7.9%)\n"
RAY = lines(
    {"training_iteration": 1, "codebook_usage": 0.5, "config": {"lr": 1e-3, "codebook_size": 128}},
    {"training_iteration": 2, "codebook_usage": 0.25, "config": {"lr": 1e-3, "codebook_size": 128}},
)
UNUSED = "Epoch 3: 12 unused codes out of 512\nEpoch 4: 13 unused codes out of 512\n"
OF_CURVES = json.dumps(
    {"codebook.usage": {"steps": [1, 2], "timestamps": ["a", "b"], "values": [0.5, 0.4]}}
)

K = {"codebook_size": 512}
# name: (file, content, arguments, split, column, values)
UNDERSTOOD = {
    "labram's log.txt": ("log.txt", LABRAM, K, "train", "used_codes", [512, 508]),
    "labram's test split": ("log.txt", LABRAM, K, "val", "used_codes", [500, 501]),
    "json lines, last one cut off": ("a.log", LABRAM + '{"epoch": 2, "tr', K, "val", "used_codes", [500, 501]),
    "mae's console": ("log", MAE_CONSOLE, K, "train", "used_codes", [112, 132, 212]),
    "simvq's console": ("output.log", SIMVQ, {}, "train", "utilization", [0.0688, 0.2654]),
    "python logging": ("train.log", LOGGING, {}, "train", "used_codes", [97, 96]),
    "blocks": ("zalando.txt", BLOCKS, K, "train", "perplexity", [22, 24]),
    "a progress bar": ("err.txt", BAR, {}, "train", "utilization", [0.5, 0.25]),
    "colours of a terminal": ("x.log", ANSI, {}, "train", "used_codes", [500, 400]),
    "splits in brackets": ("x.log", SPLITS_PRINTED, {}, "val", "utilization", [0.4, 0.3]),
    "json within a line": ("train.log", FAIRSEQ, K, "train", "perplexity", [120.5, 130.5]),
    "a bar within an epoch": ("x.log", BAR_OF_EPOCH, K, "train", "perplexity", [45, 46]),
    "sentences": ("x.log", SENTENCES, {}, "train", "used_codes", [97, 96]),
    "unused, in words": ("x.log", UNUSED, K, "train", "used_codes", [500, 499]),
    "curves with steps of their own": ("metrics.json", OF_CURVES, {}, "train", "utilization", [0.5, 0.4]),
    "commas between thousands": ("a.csv", 'step,used_codes\n"1,000","5,120"\n', {"codebook_size": 8192}, "train", "used_codes", [5120]),
    "lightning": ("metrics.csv", LIGHTNING, {}, "train", "utilization", [0.1, 0.2, 0.3]),
    "lightning's validation": ("metrics.csv", LIGHTNING, {}, "val", "utilization", [0.08]),
    "lightning's _step and _epoch": ("metrics.csv", LIGHTNING_TWICE, K, "train", "perplexity", [40, 41]),
    "wandb's chart, per cent": ("wandb_export.csv", WANDB, {}, "train", "utilization", [0.125, 0.0725]),
    "tensorboard's curve": ("run-a-tag-val_codebook_usage.csv", TENSORBOARD, {}, "val", "utilization", [0.5, 0.25]),
    "trainer_state.json": ("trainer_state.json", TRAINER_STATE, {}, "train", "utilization", [0.1, 0.2]),
    "trainer's evaluation": ("trainer_state.json", TRAINER_STATE, {}, "val", "utilization", [0.05]),
    "nested history": ("out.json", NESTED, K, "train", "used_codes", [5, 6]),
    "history of lists": ("history.json", OF_LISTS, K, "train", "perplexity", [3.5, 4.5]),
    "keras": ("history.json", KERAS, {}, "val", "utilization", [0.3, 0.2]),
    "lists of two lengths": ("history.json", UNEVEN, {}, "train", "utilization", [0.5, 0.4, 0.3]),
    "fractions in cells": ("a.csv", "iter,codes\n1,97/128\n2,96/128\n".replace("codes", "active_codes"), {}, "train", "used_codes", [97, 96]),
    "per cent signs": ("a.csv", "iteration,usage\n1,12.5%\n2,7%\n", {}, "train", "utilization", [0.125, 0.07]),
    "dead codes": ("a.csv", "epoch,train_loss,dead_codes\n0,1,400\n1,1,410\n", K, "train", "used_codes", [112, 102]),
    "share of dead codes": ("a.csv", "step,dead_ratio\n1,0.75\n2,0.5\n", {}, "train", "utilization", [0.25, 0.5]),
    "used and unused": ("a.csv", "step,n_used,n_unused\n1,40,60\n2,30,70\n", {}, "train", "utilization", [0.4, 0.3]),
    "a share under a count's name": ("a.csv", "step,active_codes\n1,0.5\n2,0.25\n", {}, "train", "utilization", [0.5, 0.25]),
    "a count under a share's name": ("a.csv", "step,usage\n1,400\n2,300\n", K, "train", "used_codes", [400, 300]),
    "an entropy in bits": ("a.csv", "step,entropy\n1,7\n2,8\n", {"codebook_size": 256}, "train", "perplexity", [128, 256]),
    "semicolons": ("a.csv", "step;used_codes\n1;5\n2;6\n", K, "train", "used_codes", [5, 6]),
    "tabs": ("a.tsv", "step\tused_codes\n1\t5\n2\t6\n", K, "train", "used_codes", [5, 6]),
    "spaces": ("a.dat", "# step  used_codes\n 1  5\n 2  6\n", K, "train", "used_codes", [5, 6]),
    "comments above": ("a.csv", "# vq run\n# seed 1\nstep,used_codes\n1,5\n", K, "train", "used_codes", [5]),
    "a byte order mark": ("a.csv", "\ufeffstep,used_codes\n1,5\n", K, "train", "used_codes", [5]),
    "camel case": ("a.csv", "globalStep,trainCodebookUsage\n1,0.5\n", {}, "train", "utilization", [0.5]),
    "no step": ("a.csv", "used_codes\n5\n6\n", K, "train", "used_codes", [5, 6]),
    "a mode column": ("a.csv", "step,mode,used\n1,train,5\n1,eval,4\n", K, "val", "used_codes", [4]),
    "steps of each epoch": ("a.csv", "epoch,iter,used\n0,0,9\n0,1,8\n1,0,7\n1,1,6\n", K, "train", "used_codes", [9, 8, 7, 6]),
    "K beside it": ("a.csv", "step,num_codes_used,codebook_size\n1,64,128\n", {}, "train", "utilization", [0.5]),
    "rounded above 1": ("a.csv", "step,util\n1,1.0000001\n2,0.5\n", {}, "train", "utilization", [1.0, 0.5]),
    "a language model's perplexity beside it": ("a.csv", "step,ppl,usage\n1,9000,0.5\n", K, "train", "utilization", [0.5]),
    "codes in a sentence": ("x.log", ENTRIES, {}, "train", "used_codes", [931, 81]),
    "the codebook in a sentence": ("x.log", "iter 1: 12.5% of the codebook is used\niter 2: 7% of the codebook is used\n", {}, "train", "utilization", [0.125, 0.07]),
    "tensorboard's curve as JSON": ("run-a-tag-val_codebook_usage.json", "[[1.5, 10, 0.5], [2.5, 20, 0.25]]", {}, "val", "utilization", [0.5, 0.25]),
    "K in a record of settings": ("result.json", RAY, {}, "train", "used_codes", [64, 32]),
    "a mean code's usage beside the use": ("a.csv", "step,usage/min,usage/max,usage/mean,used\n1,0,0.3,0.01,5\n", K, "train", "used_codes", [5]),
    "a mean usage alone": ("a.csv", "step,mean_usage\n1,0.5\n", {}, "train", "utilization", [0.5]),
    "an llm's jsonl": ("m.jsonl", lines({"it": 1, "vq/usage": 0.5, "note": "a"}, {"it": 2, "vq/usage": 0.4}), {}, "train", "utilization", [0.5, 0.4]),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", UNDERSTOOD)
def test_it_is_understood(name, packed, tmp_path):
    file, content, given, split, column, values = UNDERSTOOD[name]
    path = tmp_path / (file + ".gz" * packed)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    (log,) = read_all(path, **given).values()
    assert shown(log, split, column) == values


LEVELS = {
    "lists in cells": lines({"step": 1, "train/codebook_usage": [0.9, 0.4]}, {"step": 2, "train/codebook_usage": [0.8, 0.3]}),
    "lists written in a table": 'step,usage\n1,"[0.9, 0.4]"\n2,"[0.8, 0.3]"\n',
    "u0 and u1": "step,u0,u1\n1,0.9,0.4\n2,0.8,0.3\n",
    "folders": "step,codebook_0/usage,codebook_1/usage\n1,0.9,0.4\n2,0.8,0.3\n",
    "with a figure of all": "step,usage,usage_0,usage_1\n1,0.6,0.9,0.4\n2,0.5,0.8,0.3\n",
    "printed in a row": "[Epoch 1] usage: 0.9 0.4\n[Epoch 2] usage: 0.8 0.3\n",
    "printed": "step 1 usage: [0.9, 0.4]\nstep 2 usage: [0.8, 0.3]\n",
}  # fmt: skip


@pytest.mark.parametrize("name", LEVELS)
def test_each_codebook_is_a_history_of_its_own(name, tmp_path):
    (tmp_path / "log").write_text(LEVELS[name])
    logs = read_all(tmp_path / "log")
    assert [shown(log, "train", "utilization") for log in logs.values()] == [[0.9, 0.8], [0.4, 0.3]]
    found = diagnose(tmp_path / "log")
    assert {a.subject for a in found.answers} == {"codebook 0", "codebook 1"}


# name: (file, content, arguments, what the message holds)
REFUSED = {
    "codes or per cent": ("a.csv", "step,usage\n1,40\n2,30\n", K, "--map used_codes=usage, or --map utilization_percent=usage"),
    "one code or all codes": ("a.csv", "step,usage\n1,1\n2,1\n", K, "--map used_codes=usage, or --map utilization=usage"),
    "per cent below one": ("a.csv", "step,usage_pct\n1,0.4\n2,0.3\n", K, "--map utilization=usage_pct (shares)"),
    "nats or bits": ("a.csv", "step,codebook_entropy\n1,4.1\n", K, "--map entropy_nats=codebook_entropy"),
    "dead codes of how many": ("a.csv", "step,dead_codes\n1,400\n", {}, "--codebook_size K"),
    "more dead codes than codes": ("a.csv", "step,dead_codes\n1,600\n", K, "600 unused codes of 512"),
    "nothing of the codebook": ("a.csv", "step,loss\n1,400\n", K, "its columns are step, loss"),
    "K of another codebook": ("a.csv", "step,used\n1,97/128\n", K, "the second number says 128 codes, codebook_size 512"),
    "a wide loss": ("log.txt", lines({"epoch": 1, "loss": 3}), K, "its columns are epoch, loss"),
    "a mean code's usage": ("a.csv", "step,min_usage,max_usage,mean_usage\n1,0,0.3,0.01\n", K, "--map utilization=mean_usage"),
    "a picture": ("a.csv", b"\x89PNG\r\n\x1a\n0000", K, "a PNG picture"),
    "a pickle": ("a.pkl", b"\x80\x04\x95", K, "a pickle, which is never opened"),
    "a checkpoint": ("a.ckpt", b"PK\x03\x04x", K, "an archive"),
    "a page": ("a.html", "<!DOCTYPE html><p>used codes: 5", K, "HTML"),
    "source": ("a.py", "import torch\nused_codes = 5\n", K, "Python source"),
    "a notebook": ("a.ipynb", json.dumps({"cells": [], "metadata": {}, "nbformat": 4}), K, "a Jupyter notebook"),
    "prose": ("a.md", "# Notes\nA codebook of many codes, most of them dead.\n", K, "names no use of a codebook"),
    "numbers without names": ("a.csv", "1,2,3\n4,5,6\n", K, "a table whose columns are not named"),
    "ragged": ("a.csv", "step,used_codes\n1,5\n2,6,7,8\n", K, "row 2 has 4 cells"),
    "text in a cell": ("a.csv", "step,used_codes\n1,5\n2,many\n", K, "row 2, column `used_codes`: expected a number, found 'many'"),
    "NUL": ("a.csv", "step,used_codes\n1,5\0\n", K, "NUL"),
    "deep JSON": ("a.json", "[" * 100_000, K, "expected a log"),
    "broken gzip": ("a.gz", b"\x1f\x8b\x08\x00garbage", K, "damaged"),
    "a header of a million names": ("a.csv", "step," + "a," * 1_000_000 + "\n1,2\n", K, "1,000,002 columns"),
    "two seeds": ("a.csv", "step,seed,used_codes\n1,0,5\n1,1,5\n", K, "column `seed` has 2 values"),
    "a huge number": ("a.csv", "step,used_codes\n1," + "9" * 400 + "\n", K, "expected"),
    "above K": ("a.csv", "step,used_codes\n1,600\n", K, "at most the codebook's 512 codes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line_that_says_what_to_do(name, tmp_path, capsys):
    file, content, given, words = REFUSED[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = [f"--{k}={v}" for k, v in given.items()]
    assert cli.main(["diagnose", str(path), *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.out == ""
    assert captured.err.startswith(f"error: {path}") and captured.err.count("\n") == 1
    assert len(captured.err) < 600


@pytest.mark.parametrize(
    ("line", "columns"),
    [
        ("usage q0=0.9 q1=0.4 q2=0.1 loss=0.3", {"0": 0.9, "1": 0.4, "2": 0.1}),
        ("codebook usage: [vq_0: 0.9, vq_1: 0.4]", {"0": 0.9, "1": 0.4}),
        ("used codes: q1=97/128, q2=40/128 | loss 0.3", {"1": 97 / 128, "2": 40 / 128}),
        ("gpu usage q0=0.5 q1=0.7, codebook usage 0.25", {"": 0.25}),
        ("usage g0=0.5 g1=0.7", None),  # a word of no codebook
    ],
)
def test_a_series_of_codebooks_below_one_name(line, columns, tmp_path):
    (tmp_path / "x.log").write_text(f"step 1 {line}\nstep 2 {line}\n")
    if columns is None:
        with pytest.raises(HistoryError):
            read_all(tmp_path / "x.log")
        return
    logs = read_all(tmp_path / "x.log")
    found = {level: log.table["utilization"].iloc[0] for level, log in logs.items()}
    assert found == pytest.approx(columns)


def test_k_from_two_columns_is_said(tmp_path):
    (tmp_path / "a.csv").write_text("step,n_used,n_unused\n1,40,60\n2,30,70\n")
    (log,) = read_all(tmp_path / "a.csv").values()
    assert "codebook_size <- n_used + n_unused" in log.understood


def test_a_map_settles_what_was_refused(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("step,usage\n1,40\n2,30\n")
    path = str(tmp_path / "a.csv")
    cli.main(["diagnose", path, "--map", "utilization_percent=usage", "--json"])
    assert json.loads(capsys.readouterr().out)["understood"][-1] == "utilization <- usage / 100"
    (log,) = read_all(path, map={"used_codes": "usage"}, codebook_size=512).values()
    assert shown(log) == [40, 30]


def test_a_map_names_columns_that_mean_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("t,zz,val_zz\n10,5,4\n20,6,3\n")
    chosen = {"step": "t", "used_codes": "zz", "val/used_codes": "val_zz"}
    (log,) = read_all(tmp_path / "a.csv", map=chosen, codebook_size=8).values()
    assert shown(log) == [5, 6] and shown(log, "val") == [4, 3]
    assert log.table["step"].unique().tolist() == [10, 20]


def test_a_map_names_columns_of_another_script(tmp_path):
    (tmp_path / "a.csv").write_text("步数,使用的码\n10,5\n20,6\n", encoding="utf-8")
    chosen = {"step": "步数", "used_codes": "使用的码"}
    (log,) = read_all(tmp_path / "a.csv", map=chosen, codebook_size=8).values()
    assert shown(log) == [5, 6] and log.table["step"].tolist() == [10, 20]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("[step 1k] usage: 12%\n[step 2.5k] usage: 9%\n", [1000, 2500]),
        ("iter: 0.5M/2M, used codes: 9/16\niter: 1M/2M, used codes: 8/16\n", [500_000, 10**6]),
        ("step,used_codes,codebook_size\n5k,9,16\n10K,8,16\n", [5000, 10_000]),
        ("step 3, took 5m, usage: 12%\nstep 4, took 6m, usage: 9%\n", [3, 4]),  # minutes
    ],
)
def test_thousands_of_steps(text, steps, tmp_path):
    path = tmp_path / ("a.csv" if text.startswith("step,") else "a.log")
    path.write_text(text)
    (log,) = read_all(path).values()
    assert log.table["step"].tolist() == steps


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"nonsense": "a"}, "'nonsense' is no quantity"),
        ({"used_codes": "b"}, "has no column 'b'; it has step, a"),
    ],
)
def test_a_map_that_cannot_be_followed_is_refused(chosen, words):
    with pytest.raises(HistoryError, match=words):
        diagnose(pd.DataFrame({"step": [1], "a": [2]}), map=chosen)


def test_the_command_says_how_a_map_is_written(capsys):
    assert cli.main(["diagnose", "a.csv", "--map", "usage"]) == 2
    assert "expected QUANTITY=COLUMN, got 'usage'" in capsys.readouterr().err


def test_what_was_understood_comes_first_in_text_card_and_json(tmp_path):
    (tmp_path / "log.txt").write_text(LABRAM)
    found = diagnose(tmp_path / "log.txt", codebook_size=512)
    line = "used_codes <- 512 - train_Unused_code, split train"
    assert line in found.understood and line in found.to_dict()["understood"]
    assert str(found).index(line) < str(found).index(found.verdict)
    assert line.replace("<", "&lt;") in found._repr_html_()


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"step": [1, 2], "codebook_usage": [0.5, 0.4]}).to_parquet(tmp_path / "a.pq")
    (log,) = read_all(tmp_path / "a.pq").values()
    assert shown(log, "train", "utilization") == [0.5, 0.4]


def test_a_table_in_memory_is_understood_alike():
    table = pd.read_csv(io.StringIO(LIGHTNING))
    (log,) = read_all(table).values()
    assert shown(log, "train", "utilization") == [0.1, 0.2, 0.3]


def test_escape_codes_in_names_do_not_reach_the_terminal(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("step,loss\x1b[31m\n1,5\n")
    assert cli.main(["diagnose", str(path)]) == 2
    assert "\x1b" not in capsys.readouterr().err
    path.write_text("step,usage\x1b[31m\n1,0.5\n")
    assert "\x1b" not in str(diagnose(path, map={"utilization": "usage\x1b[31m"}))


def test_a_wide_table_is_read_in_time_that_grows_with_its_columns():
    table = pd.DataFrame(np.zeros((2, 9_000)), columns=[f"m{i}" for i in range(9_000)])
    (log,) = read_all(table.assign(step=[1, 2], usage=[0.5, 0.4])).values()
    assert shown(log, "train", "utilization") == [0.5, 0.4]
