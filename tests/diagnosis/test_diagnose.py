"""diagnose as a whole: healthy stays healthy, little data decides little, much data is quick."""

import json
import re
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.diagnosis.histories import SETTINGS, changed, healthy, using
from vqlib import diagnose, diagnosis
from vqlib.diagnosis import HistoryError, sources
from vqlib.diagnosis.findings import IDS


def test_a_healthy_history_has_nothing_but_healthy():
    found = diagnose(healthy(), **SETTINGS)
    assert found.verdict == "healthy"
    assert found.ids() == {"healthy"}
    assert found.ids("unknown") == {"ranks-disagree"}


def test_what_has_a_grave_finding_is_not_called_healthy_too():
    found = diagnose(healthy(), **(SETTINGS | {"dead_code_threshold": 99}))
    assert found["codebook-collapse"].severity == "clear"
    assert "healthy" not in found.ids() and found.verdict == "critical"


def test_every_rule_answers_with_its_own_id_once():
    answers = [rule(sources.read(healthy(), **SETTINGS)) for rule in diagnosis.RULES]
    ids = [a.id for a in answers]
    assert len(set(ids)) == len(ids)
    assert set(ids) | {"healthy", "not-reproducible"} == set(IDS)  # that needs two runs: audit


@pytest.mark.parametrize("columns", [["used_codes"], ["utilization"]])
def test_three_columns_are_enough_to_see_a_collapse(columns):
    table = using(40)[["step", "split", *columns]]
    given = {"codebook_size": 512} if columns == ["used_codes"] else {}
    found = diagnose(table, **given)
    assert found.verdict == "critical" and found["codebook-collapse"].severity == "critical"
    assert len(found.unknown) >= 8
    for answer in found.unknown:  # and each says what would decide it
        assert answer.cause.endswith(".") and answer.remedy


def test_a_single_row():
    found = diagnose(healthy().head(1), **SETTINGS)
    assert found.verdict == "healthy"


@pytest.mark.parametrize("size", [2, 16, 10**6])
def test_codebooks_of_any_size(size):
    table = changed(
        healthy(),
        used_codes=size,
        utilization=1.0,
        perplexity=0.7 * size,
        top_code_ratio=min(3.0, 0.6 * size),
        window_tokens=20 * size,
        resets=0,
        duplicates=0,
    )
    settings = {"codebook_size": size, "tokens_per_step": 20 * size}
    assert diagnose(table, **settings).verdict == "healthy"
    sick = changed(table, used_codes=1, utilization=1 / size)
    assert diagnose(sick, **settings)["codebook-collapse"].severity == (
        "clear" if size == 2 else "critical"
    )  # one of two is half of them


def test_irregular_steps_and_sparse_validations():
    table = healthy(steps=900, val_every=450)
    train = table["split"] == "train"
    kept = ~train | (np.random.default_rng(0).random(len(table)) < 0.2)
    assert diagnose(table[kept], **SETTINGS).verdict == "healthy"


def test_a_million_rows_take_seconds():
    table = pd.concat([healthy(steps=10**6, val_every=5000)], ignore_index=True)
    start = time.process_time()
    found = diagnose(table, **SETTINGS)
    assert found.verdict == "healthy"
    assert time.process_time() - start < 30  # measured: about 2
    assert max(len(c.points) for c in found.curves.values()) <= 400


def test_layers_of_a_watched_model_are_told_apart():
    watched = SimpleNamespace(
        histories={"vq.0": healthy(), "vq.1": using(30)},
        settings={"vq.0": SETTINGS, "vq.1": SETTINGS | {"dim": 32}},
    )
    found = diagnose(watched)
    assert found.verdict == "critical"
    assert found["codebook-collapse"].subject == "vq.1"
    assert [a.subject for a in found.answers if a.id == "healthy"] == ["vq.0"]
    assert diagnose(watched, dead_code_threshold=99)["threshold-above-share"].severity == "critical"
    watched.histories["vq.2"], watched.settings["vq.2"] = healthy().head(0), {}
    found = diagnose(watched)
    assert found.ids("unknown") == {"codebook-collapse", "ranks-disagree"}
    assert found.verdict == "critical"
    watched.histories.pop("vq.2")
    watched.histories.pop("vq.0")
    assert diagnose(watched, title="mine").title == "mine"
    watched.histories["vq.1"] = healthy().head(0)
    with pytest.raises(HistoryError, match=r"no forward was seen of the watched layers: vq\.1"):
        diagnose(watched)


def test_curves_of_several_layers_keep_their_axis_from_0_to_100_percent():
    watched = SimpleNamespace(
        histories={"vq.0": healthy(), "vq.1": using(30)}, settings={"vq.0": {}, "vq.1": {}}
    )
    html = diagnose(watched)._repr_html_()
    labels = re.findall(r"<figcaption[^>]*>(.*)\n", html)
    assert labels == [
        f"vq.{i}: utilization ({split})" for i in (0, 1) for split in ("train", "val")
    ]
    assert html.count("axis 0 to 100 %") == html.count("<svg") == len(labels)


def test_json_knows_no_nan():
    table = healthy()
    table.loc[table["split"] == "train", "recon_loss"] = np.nan
    text = diagnose(using(30, table), **SETTINGS).to_json()
    values = json.loads(text, parse_constant=lambda c: pytest.fail(c))
    assert values["verdict"] == "critical"
    assert values["answers"][0]["id"] == "codebook-collapse"
    assert values["answers"][0]["evidence"][0]["value"] == 30


def test_numbers_come_with_window_and_unit():
    found = diagnose(using(30), **SETTINGS)
    for answer in found.findings:
        assert answer.evidence and answer.cause and answer.remedy
        assert any(e.window for e in answer.evidence)
