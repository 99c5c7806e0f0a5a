"""Every public function and every command, with what people hand over by mistake.

A function raises ValueError, TypeError or OSError, a command ends with 2; both say it in one line.
"""

import json
import math
import os

import numpy as np
import pandas as pd
import pytest
import torch

import vqlib
from tests.torture.test_bad_input import DEEP
from tests.training.tiny_training import tiny
from vqlib import cli, usage

ODD = {
    "nothing": None,
    "text": "x",
    "bytes": b"x",
    "list": [],
    "ragged": [[1], [2, 3]],
    "dict": {},
    "object": object(),
    "function": len,
    "nan": math.nan,
    "inf": math.inf,
    "complex": 1 + 2j,
    "array": np.array([1, 2]),
    "nan tensor": torch.tensor(math.nan),
    "NUL": "a\0b",
    "huge": 10**400,
    "longer than python prints": 10**5000,
}
NUMBERS = ODD | {"negative": -1, "bool": True}
WHOLE = NUMBERS | {"half": 1.5, "beyond int64": 2**70}
SHAPES = {
    "no tokens": torch.zeros(0, 4),
    "0-d": torch.tensor(1.0),
    "wrong width": torch.zeros(3, 5),
    "complex": torch.zeros(3, 4, dtype=torch.complex64),
    "bool": torch.zeros(3, 4, dtype=torch.bool),
    "whole": torch.zeros(3, 4, dtype=torch.int64),
    "meta": torch.zeros(3, 4, device="meta"),
    "sparse": torch.zeros(3, 4).to_sparse(),
    "NumPy's": np.zeros((3, 4)),
}
COUNTS = {
    "empty": [],
    "negative": [-1, 2],
    "nan": [math.nan, 1.0],
    "none used": [0, 0],
    "texts": ["a"],
    "complex": [1 + 2j],
    "two dimensions": torch.ones(2, 2),
    "0-d": torch.tensor(1),
    "ragged": [[1], [2, 3]],
    "object": object(),
    "nothing": None,
}
LOGS = {
    "number": 3,
    "empty": pd.DataFrame(),
    "unnamed": pd.DataFrame(np.zeros((2, 3))),
    "objects": pd.DataFrame({"used_codes": [object()]}),
    "complex": pd.DataFrame({"used_codes": [1 + 2j]}),
    "nan": {"used_codes": [math.nan]},
    "inf": {"used_codes": [math.inf]},
    "scalars": {"used_codes": 3.5},
    "rows of numbers": [3],
    "text": [{"used_codes": "x"}],
    "module": torch.nn.Linear(1, 1),
    "NUL": "a\0b",
    "too long": "x" * 5000,
    "folder": "/proc",
}
PATHS = {"NUL": "a\0b", "number": 3, "a file": __file__, "too long": "x" * 300}


def quantizer(**changes):
    return vqlib.NormEMAQuantizer(**{"codebook_size": 8, "dim": 4} | changes)


def setting(call, name, values, but=()):
    """{id: (call with this argument, value)}."""
    return {
        f"{name}={kind}": (lambda v, name=name: call(**{name: v}), value)
        for kind, value in values.items()
        if kind not in but
    }


def given(name, call, values, but=()):
    return {f"{name}({kind})": (call, value) for kind, value in values.items() if kind not in but}


def cases():
    layer, history = quantizer(), pd.DataFrame({"step": [1], "used_codes": [3]})
    config, nan_ok = vqlib.TrainConfig, ("nothing",)
    found = {}
    for name in ("codebook_size", "dim", "kmeans_iterations"):
        found |= setting(quantizer, name, WHOLE)
    found |= setting(quantizer, "seed", WHOLE, ("negative",))
    found |= setting(quantizer, "decay", NUMBERS) | setting(quantizer, "beta", NUMBERS)
    found |= setting(quantizer, "reset", NUMBERS, nan_ok)
    found |= setting(quantizer, "kmeans_init", ODD)
    for name in ("every", "top"):
        found |= setting(vqlib.DeadCodeReset, name, WHOLE)
    found |= setting(vqlib.DeadCodeReset, "threshold", NUMBERS)
    found |= setting(vqlib.DeadCodeReset, "refill", NUMBERS, nan_ok)
    for name in ("donors", "relative"):
        found |= setting(vqlib.DeadCodeReset, name, ODD)
    tensors = ODD | SHAPES | {"nan": torch.full((3, 4), math.nan)}
    found |= given("quantizer", lambda z: quantizer()(z), tensors)
    found |= given("quantizer.eval", lambda z: quantizer().eval()(z), ODD | SHAPES)
    for name in ("used_codes", "utilization", "entropy", "perplexity", "perplexity_share"):
        found |= given(name, getattr(usage, name), COUNTS, ("none used",))
    for name in ("top_code_ratio", "gini", "summarize", "entropy"):
        found |= given(name, getattr(usage, name), COUNTS)
    found |= given("dead_codes", lambda t: usage.dead_codes([1], t), NUMBERS)
    found |= given("uniform_utilization", lambda n: usage.uniform_utilization(n, 3), NUMBERS)
    found |= given("UsageCounter", usage.UsageCounter, WHOLE)
    found |= given("UsageCounter.update", usage.UsageCounter(4).update, ODD)
    flat = ("wrong width", "bool", "whole", "no tokens")
    for name in ("effective_rank", "feature_std", "near_duplicates", "pairwise_similarity"):
        found |= given(name, getattr(usage, name), ODD | SHAPES, flat)
    for name in ("codebook_size", "dim", "batch_size", "epochs", "val_every", "checkpoint_every"):
        found |= setting(config, name, WHOLE)
    for name in ("decay", "beta", "learning_rate", "dead_code_threshold"):
        found |= setting(config, name, NUMBERS)
    for name in ("kmeans_init", "device", "reset_donors", "variant"):
        found |= setting(config, name, ODD, nan_ok)
    found |= given("train", lambda c: vqlib.train(c, progress=False), ODD, nan_ok)
    found |= given("train, out_dir", lambda p: vqlib.train(tiny(), p, progress=False), PATHS)
    found |= given("Run.load", vqlib.Run.load, ODD | PATHS)
    found |= given("watch", vqlib.watch, ODD | {"no quantizer": torch.nn.Linear(2, 2)})
    watch = lambda **more: vqlib.watch(layer, **more)  # noqa: E731
    found |= setting(watch, "every", WHOLE) | setting(watch, "window", WHOLE)
    found |= setting(watch, "adapters", ODD, ("nothing", "dict"))
    found |= setting(watch, "on_row", ODD, ("nothing", "function"))
    found |= given("diagnose", vqlib.diagnose, ODD | LOGS, ("huge", "longer than python prints"))
    diagnose = lambda **more: vqlib.diagnose(history, **{"codebook_size": 8} | more)  # noqa: E731
    for name in ("codebook_size", "tokens_per_step", "decay", "dim", "reset_interval"):
        found |= setting(diagnose, name, NUMBERS, nan_ok)
    found |= setting(diagnose, "map", ODD, ("nothing", "dict"))
    found |= given("audit", vqlib.audit, ODD | {"no quantizer": torch.nn.Linear(2, 2)})
    audit = lambda **more: vqlib.audit(layer, ranks=False, **more)  # noqa: E731
    found |= setting(audit, "dim", WHOLE, nan_ok) | setting(audit, "tokens", WHOLE, nan_ok)
    found |= setting(audit, "adapter", ODD, nan_ok)
    found |= given("audit_table", vqlib.audit_table, ODD, ("list", "dict"))
    found |= given(
        "record, name", lambda n: vqlib.record(n, 1), ODD | {"empty": ""}, ("text", "NUL")
    )
    whole = ("huge", "longer than python prints")
    found |= given("record", lambda v: vqlib.record("a", v), ODD, whole)
    alarms = lambda **more: vqlib.Alarms(vqlib.watch(layer), **more)  # noqa: E731
    for name in ("every", "warm_up", "confirm", "patience"):
        found |= setting(alarms, name, WHOLE)
    found |= setting(alarms, "stop_if", ODD, ("list", "dict"))
    return found | given("Alarms", vqlib.Alarms, ODD)


CASES = cases()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_function_says_in_one_line_what_is_wrong(case):
    call, value = case
    with pytest.raises((ValueError, TypeError, OSError)) as caught:
        call(value)
    text = str(caught.value)
    assert text and "\n" not in text and "\0" not in text and len(text) < 1000


FILES = {
    "empty": b"",
    "nul": b"used_codes\n\0\0\n",
    "latin": b"used_codes\n\xff\xe9\n",
    "deep.toml": b"a = " + b"[" * 50_000,
    "latin.toml": b"a = '\xff'",
    "nul.toml": b"a = '\0'",
    "bom.toml": b"\xef\xbb\xbfa = 1 2",
    "odd.toml": b"seeds = 'x'\n[arms.a]\nsteps = 'many'\n",
    "arms.toml": b"seeds = 1\n[base]\ndataset = 'digits'\nsteps = 1\n[arms.a]\n",
    "deep.json": DEEP.encode(),
    "deep.ipynb": DEEP.encode(),
    "list.ipynb": b"[]",
    "nul.ipynb": b"\0",
    "cells.ipynb": json.dumps({"cells": 3, "nbformat": 4, "nbformat_minor": 5}).encode(),
    "good.csv": b"step,used_codes\n1,3\n",
}
ANY = ("missing", "folder", "broken", "pipe", "empty", "nul", "latin", "/dev/null", "x" * 300, "")
COMMANDS = [
    *[("diagnose", name) for name in (*ANY[:3], *ANY[4:], "deep.json")],
    *[("diagnose", "good.csv", "--codebook_size", n) for n in ("0", "-1", "9" * 400)],
    *[("diagnose", "good.csv", "--decay", n) for n in ("nan", "inf", "2", "-1")],
    *[("diagnose", "good.csv", "--map", text) for text in ("x", "=", "used_codes=", "odd=step")],
    *[("diagnose", "good.csv", "--codebook_size=8", "--html", n) for n in ("empty", "no/a", "")],
    *[("sweep", name) for name in (*ANY, *(n for n in FILES if n.endswith(".toml")))][:-1],
    ("sweep", "arms.toml", "--backend", "nonsense"),
    ("sweep", "arms.toml", "--scheduler", "somewhere:1"),
    ("sweep", "arms.toml", "--out", "empty"),
    *[("train", "--steps=1", "--dataset_dir", name) for name in (*ANY[:9], "good.csv")],
    *[("train", "--steps=1", "--dataset=digits", "--out_dir", n) for n in ("empty", "/proc/x")],
    *[("train", f"--{name}") for name in ("steps=0", "batch_size=-1", "decay=nan", "beta=inf")],
    *[("train", f"--{name}") for name in ("dataset=x", "variant=x", "codebook_size=0")],
    ("train", "--steps=1", "--rank_timeout", "nan"),
    ("train", "--steps=1", "--resume"),
    *[
        (command, name)
        for command in ("run", "check", "expect")
        for name in ("missing.ipynb", "folder", "deep.ipynb", "list.ipynb", "nul.ipynb")
    ],
    *[("check", n) for n in ("cells.ipynb", "pipe.ipynb", "broken", "")],
    *[("check", "--timeout", n) for n in ("nan", "-1", "0")],
    *[
        ("run", *a)
        for a in (("--jobs", "0"), ("--profile", "x"), ("--set", "x"), ("--out", "empty"))
    ],
    ("expect",),
    *[("calibrate", n) for n in ("missing.ipynb", "folder", "pipe.ipynb", "deep.ipynb")],
    *[("calibrate", "cells.ipynb", "--kinds", n) for n in ("x", "avx2", "avx2:0", "avx2:-1")],
    *[("trust", *a) for a in (("--seeds", "0"), ("--faults", "x"), ("--kinds", "x:1"))],
    *[("diff", name, name) for name in (*ANY[:3], *ANY[4:8], "deep.json", "good.csv")],
    ("field", "--packages", "nonsense"),
    ("field", "--out", "good.csv"),
    ("lessons",),
    ("lessons", "--student", "empty"),
    ("lessons", "--instructor", "/proc/x"),
    *[("selftest", "--runs", n) for n in ("0", "-1")],
]


@pytest.fixture
def messy(tmp_path, monkeypatch):
    """A folder with all of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path / "cache"))
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("pipe", "pipe.ipynb"):
        os.mkfifo(tmp_path / name)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:60])
def test_a_command_says_in_one_line_what_is_wrong(messy, capsys, command):
    try:
        status = cli.main(command)
    except SystemExit as stop:  # the parser's own
        status = stop.code
    said = capsys.readouterr().err
    assert status == 2 and "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert lines and all(line.isprintable() and len(line) < 1000 for line in lines), said
    others = [line for line in said.splitlines() if line.strip() and "%|" not in line]
    assert others == lines


def test_each_command_is_tried():
    assert {command[0] for command in COMMANDS} == cli.COMMANDS.keys()
