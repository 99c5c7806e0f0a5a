"""Alarms say once what appears and once what goes, and never end a training."""

import json
import logging
import warnings

import pytest
import torch
from vector_quantize_pytorch import ResidualVQ

import vqlib
from tests.watching.watched_models import Autoencoder, batch, train
from vqlib.diagnosis import alarms as module
from vqlib.diagnosis.findings import Diagnosis, Evidence, Finding

K, E = 64, "codebook-collapse"


def collapsing(seed: int = 0) -> Autoencoder:
    """Its codes start far away from where the encoder's outputs are, and nothing moves them."""
    torch.manual_seed(seed)
    model = Autoencoder(vqlib.NormEMAQuantizer(K, 16, reset=None, kmeans_init=False))
    with torch.no_grad():
        model.encoder.weight.mul_(0.01)
        model.encoder.bias.add_(1.0)
    model.encoder.requires_grad_(False)
    return model


def scripted(monkeypatch, script: list[dict[str, str]], **options):
    """What is said if diagnosis i answers with ``script[i]``, {id: severity}."""
    answers = iter(script)

    def diagnose(source):
        found = [
            Finding(i, severity, (Evidence("share", 0.1),), "cause", "remedy")
            for i, severity in next(answers).items()
        ]
        return Diagnosis.of("scripted", found)

    monkeypatch.setattr(module, "diagnose", diagnose)
    said, model = [], collapsing()
    with vqlib.watch(model) as w:
        alarms = vqlib.Alarms(w, said.append, every=1, **({"warm_up": 0} | options))
        train(model, len(script))
    return [(a.step, a.event, a.finding.id, a.finding.severity) for a in said], alarms


def events(monkeypatch, severities: str, **options) -> list[tuple]:
    """(step, event, severity) for one finding; a letter a diagnosis."""
    names = {"c": "critical", "w": "warning", "n": "note", ".": "clear", "?": "unknown"}
    said, _ = scripted(monkeypatch, [{E: names[s]} for s in severities], **options)
    return [(step, event, severity) for step, event, _, severity in said]


def test_a_finding_is_said_once_when_it_appears_and_once_when_it_goes(monkeypatch):
    assert events(monkeypatch, "..cccc....") == [(4, "appeared", "critical"), (8, "gone", "clear")]


@pytest.mark.parametrize("flicker", ["c.c.c.c.", "..c..w..", "nnnn", "????", "."])
def test_what_flickers_is_not_said(monkeypatch, flicker):
    assert events(monkeypatch, flicker) == []


def test_between_severities_it_is_said_when_it_settles(monkeypatch):
    assert events(monkeypatch, "cwcwcwww") == [(2, "appeared", "warning"), (8, "gone", "clear")][:1]
    assert events(monkeypatch, "wwwcwccc") == [
        (2, "appeared", "warning"),
        (7, "changed", "critical"),
    ]


def test_what_cannot_be_decided_changes_nothing(monkeypatch):
    assert events(monkeypatch, "cc??????.?.") == [
        (2, "appeared", "critical"),
        (11, "gone", "clear"),
    ]


def test_one_diagnosis_is_enough_if_wanted(monkeypatch):
    assert events(monkeypatch, ".c.", confirm=1) == [
        (2, "appeared", "critical"),
        (3, "gone", "clear"),
    ]


def test_before_the_warm_up_only_what_shows_early_is_said(monkeypatch):
    script = [{E: "critical", "cold-start": "critical"}] * 8
    said, _ = scripted(monkeypatch, script, warm_up=5)
    assert [(step, i) for step, _, i, _ in said] == [(2, "cold-start"), (6, E)]


def test_the_rule_to_stop_waits_for_patience_and_ends_nothing(monkeypatch):
    letters = {"c": "critical", "w": "warning"}
    script = [{E: letters[s], "encoder-collapse": "critical"} for s in "ccwccccc"]
    said, alarms = scripted(monkeypatch, script, stop_if={E}, patience=3)
    assert alarms.should_stop and [s for s in said if s[1] == "stop"] == [
        (6, "stop", E, "critical")
    ]
    _, alarms = scripted(monkeypatch, script[:5], stop_if={E}, patience=3)
    assert not alarms.should_stop
    _, alarms = scripted(monkeypatch, script, stop_if=E, patience=3, warm_up=7)
    assert not alarms.should_stop


def test_a_real_collapse_is_a_log_record(caplog):
    model = collapsing()
    with caplog.at_level(logging.INFO, "vqlib"), vqlib.watch(model) as w:
        alarms = vqlib.Alarms(w, every=10, warm_up=20, stop_if=[E], patience=3)
        train(model, 60)
    (record,) = [r for r in caplog.records if r.id == E and r.event == "appeared"]
    assert (record.name, record.levelno, record.layer) == ("vqlib", logging.CRITICAL, "quantizer")
    assert (record.severity, record.step) == ("critical", 30)
    assert record.evidence["used_codes"] < K / 4
    assert "step 30, quantizer: codebook-collapse (critical)" in record.getMessage()
    json.dumps(record.evidence)
    assert alarms.should_stop and alarms.standing["quantizer", E] == "critical"
    assert alarms.counts()["quantizer"]["critical"] >= 1
    (stop,) = [r for r in caplog.records if r.event == "stop"]
    assert "stays critical: this training should stop" in stop.getMessage()


def test_alarms_and_the_diagnosis_of_the_watch_agree():
    model = collapsing()
    with vqlib.watch(model) as w:
        alarms = vqlib.Alarms(w, lambda alarm: None, every=10, warm_up=0)
        train(model, 60, val_every=20)
    final = vqlib.diagnose(w)
    for severity in ("critical", "warning"):
        assert alarms.diagnosis.ids(severity) == final.ids(severity)


def test_long_runs_are_read_thinned_and_judged_the_same(monkeypatch):
    monkeypatch.setattr("vqlib.watching.rows.Thinned.MOST", 40)
    for build in (collapsing, healthy):
        model = build()
        with vqlib.watch(model) as w:
            alarms = vqlib.Alarms(w, lambda alarm: None, every=100, warm_up=0)
            train(model, 400, val_every=100)
        assert len(alarms.histories[w.layers[0]]) < 80
        final = vqlib.diagnose(w)
        assert alarms.diagnosis.ids("critical") == final.ids("critical")


def healthy() -> Autoencoder:
    torch.manual_seed(0)
    reset = vqlib.DeadCodeReset(threshold=0.1, relative=True, refill=1.0)
    return Autoencoder(vqlib.NormEMAQuantizer(16, 16, reset=reset))


def test_a_healthy_run_is_silent():
    said, model = [], healthy()
    with vqlib.watch(model) as w:
        alarms = vqlib.Alarms(w, said.append, every=10, warm_up=20, stop_if=module.IDS)
        train(model, 100, val_every=20)
    assert [a for a in said if a.finding.severity == "critical"] == []
    assert not alarms.should_stop and alarms.diagnosis.verdict != "critical"


def test_each_layer_is_named_once():
    torch.manual_seed(0)
    model = Autoencoder(ResidualVQ(dim=16, codebook_size=K, num_quantizers=3))
    with torch.no_grad():
        model.encoder.weight.zero_()  # one token for everything
    model.encoder.requires_grad_(False)
    said = []
    with vqlib.watch(model) as w:
        vqlib.Alarms(w, said.append, every=10, warm_up=0)
        train(model, 60)
    named = [(a.layer, a.finding.id) for a in said if a.event == "appeared"]
    assert {layer for layer, i in named if i == E} == set(w.layers)
    assert len(named) == len(set(named))


def test_a_callable_that_fails_is_one_warning():
    def page(alarm):
        raise OSError("pager is off")

    model = collapsing()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with vqlib.watch(model) as w:
            vqlib.Alarms(w, page, every=10, warm_up=0)
            train(model, 60)
    assert len([w for w in caught if "on_alarm" in str(w.message)]) == 1


def test_it_changes_no_bit():
    results = []
    for on in (False, True):
        model = collapsing()
        with vqlib.watch(model) as w:
            if on:
                vqlib.Alarms(w, lambda alarm: None, every=3, warm_up=0)
            results.append((train(model, 20, val_every=5), torch.get_rng_state()))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])


def test_only_the_first_process_speaks(monkeypatch, caplog):
    for rank, spoken in ((1, False), (0, True)):
        monkeypatch.setattr(module, "process", lambda rank=rank: (rank, 2))
        caplog.clear()
        model = collapsing()
        with caplog.at_level(logging.INFO, "vqlib"), vqlib.watch(model) as w:
            alarms = vqlib.Alarms(w, every=10, warm_up=0)
            train(model, 30)
        assert alarms.standing and bool(caplog.records) == spoken
    assert "Counted in process 0 of 2 alone" in caplog.records[0].getMessage()


def test_wrong_arguments_are_named():
    w = vqlib.watch(collapsing())
    with pytest.raises(TypeError, match=r"what vqlib\.watch returns, got Autoencoder"):
        vqlib.Alarms(collapsing())
    with pytest.raises(ValueError, match="no finding is called codebook-colapse; the ids are"):
        vqlib.Alarms(w, stop_if={"codebook-colapse"})
    with pytest.raises(ValueError, match="every must be a whole number of at least 1, got 0"):
        vqlib.Alarms(w, every=0)
    with pytest.raises(ValueError, match="warm_up must be a whole number of at least 0, got -1"):
        vqlib.Alarms(w, warm_up=-1)
    with pytest.raises(TypeError, match="on_alarm must be callable"):
        vqlib.Alarms(w, 3)


def test_nothing_seen_yet_is_no_error():
    model = collapsing()
    with vqlib.watch(model) as w:
        alarms = vqlib.Alarms(w, every=1)
        model.encoder(batch(0))
    assert alarms.diagnosis is None
