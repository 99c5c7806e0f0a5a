"""The trial on a signal: its kept table is that of its settings, and it can be run again."""

from dataclasses import replace

import pytest

from vqlib.lessons import trials
from vqlib.lessons.effects import paired
from vqlib.lessons.trials import signals


def test_the_kept_table_is_of_every_arm_and_seed():
    table = trials.read("signals")
    kept = sorted(zip(table["arm"], table["seed"], strict=True))
    assert kept == sorted((arm, seed) for arm in signals.ARMS for seed in signals.SEEDS)


@pytest.mark.parametrize("seeds", [signals.CHOSEN_ON, signals.SEEDS[5:]])
def test_collapse_cause_and_cure_hold_on_the_seeds_that_chose_and_on_the_others(seeds):
    table = trials.read("signals")
    table = table[table["seed"].isin(seeds)]
    assert table.loc[table["arm"] == "baseline", "utilization"].mean() < 0.6 < table["start"].min()
    effects = paired(table)
    assert effects.at["reset", "low"] > 10 and effects.at["frozen encoder", "low"] > 10


def test_the_trial_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("VQLIB_CACHE", str(tmp_path))
    arms = {name: replace(config, steps=2, val_every=1) for name, config in signals.ARMS.items()}
    for name, value in {"ARMS": arms, "SEEDS": range(1), "READ_AT": 1, "STEPS": 2}.items():
        monkeypatch.setattr(signals, name, value)
    table = signals.run()
    assert list(table["arm"]) == list(arms)
    assert (table["recon_loss"] > 0).all() and (table["start"] > 0.9).all()
    assert set(table) == set(trials.read("signals"))
