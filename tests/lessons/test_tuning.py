"""The grid of notebook 05, and its arithmetic on tables whose answer is known."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vqlib.lessons import effects, trials, tuning
from vqlib.lessons.trials import tune

SEEDS = range(10)
CROSSINGS = [*tuning.CROSSINGS.values(), tuning.WITHOUT_RESET, tuning.IN_SHARES]
ALONE, ON, TOGETHER = 4.0, 40.0, 9.0  # points: a companion, the reset, what they do together


def table(value, seeds=SEEDS, arms=None):
    """A row for each arm of the grid and each seed; ``value(config, seed)`` is in points."""
    configs = arms or tuning.grid()
    rows = [
        {"arm": arm, "seed": s, "utilization": value(c, s) / 100, "perplexity": value(c, s)}
        for arm, c in configs.items()
        for s in seeds
    ]
    return pd.DataFrame(rows).assign(recon_loss=0.03)


def additive(config, seed):
    """Seeds differ by far more than arms do, and noise by seed is the same in every arm."""
    on = config.dead_code_threshold > 0
    lower = config.decay < 0.9
    return 10 * seed + ALONE * lower + ON * on + TOGETHER * (on and lower)


# --- the arms ---


def test_every_arm_of_the_grid_is_another_setting_with_a_name_of_its_own():
    grid = tuning.grid()
    assert len(set(grid.values())) == len(grid)
    assert grid["baseline"] == tuning.HOME and grid["reset"] == tuning.GUIDED
    assert grid["reset, decay 0.75"] == replace(tuning.HOME, dead_code_threshold=1.0, decay=0.75)


@pytest.mark.parametrize("crossing", CROSSINGS)
def test_a_crossing_names_the_arm_with_its_two_levels(crossing):
    grid = tuning.grid()
    for row in crossing.rows:
        for column in crossing.columns:
            config = grid[crossing.arm(row, column)]
            assert getattr(config, crossing.row) == row
            assert getattr(config, crossing.column) == column


def test_the_grid_tries_what_is_asked():
    configs = tuning.grid().values()
    assert {c.decay for c in configs} == {0.99, 0.9, 0.75, 0.7, 0.5}
    assert {c.beta for c in configs} == {0.25, 0.1}
    absolute = {c.dead_code_threshold for c in configs if not c.reset_relative}
    assert absolute == {0, 0.5, 1, 5, 10}
    relative = {c.dead_code_threshold for c in configs if c.reset_relative}
    assert relative == {0.05, 0.1, 0.25, 0.5}
    assert {c.reset_interval for c in configs} == {1, 5, 10, 50}


def test_home_is_the_small_bed_with_the_share_that_is_said():
    assert tuning.HOME.batch_size * 14 * 14 / tuning.HOME.codebook_size == tuning.SHARE


@pytest.mark.parametrize("setting", ["guide", "0.1", "short memory"])
def test_a_pair_of_travellers_is_one_setting_at_home_and_two_elsewhere(setting):
    def limits(unit, codes, tokens):
        config = replace(tuning.HOME, **tuning.TRAVELLERS[f"{setting}, in {unit}"])
        return config.reset().limits(codes, tokens)

    assert limits("hits", 128, 1568) == pytest.approx(limits("shares", 128, 1568))
    assert limits("hits", 4096, 1568)[0] > 10 * limits("shares", 4096, 1568)[0]


def test_ceilings_are_those_of_the_hits_a_step():
    rows = tuning.ceilings().set_index(["bed", "setting"])
    row = rows.loc["K 4096, N 1568", "guide, in hits"]
    assert (row["N/K"], row["ceiling"], row["grace (steps)"]) == (0.3828125, 0.3828125, 7)
    shares = rows.loc["K 4096, N 1568", "guide, in shares"]
    assert shares["ceiling"] == 1 and shares["grace (steps)"] == 7
    assert rows.loc[("K 512, N 1568", "short memory, in hits"), "grace (steps)"] == 2


def test_the_reset_notices_a_dead_code_sooner_by_decay_or_by_threshold():
    grid = tuning.grid()
    arms = ("reset", "reset, decay 0.75", "reset, threshold 5")
    assert [tuning.notice(grid[arm]) for arm in arms] == [24, 9, 9]  # 12.25 x 0.9^23 = 1.09
    assert tuning.notice(grid["reset, decay 0.99"]) > tuning.HOME.steps  # never, in such a run


def test_arms_are_taken_by_name_and_exchanged_on_purpose():
    arms = tuning.company(["beta 0.1"])
    assert arms == ["baseline", "beta 0.1", "reset", "reset, beta 0.1"]
    configs = tuning.configs(arms, {"reset": "baseline"})
    assert configs["reset"] == tuning.HOME and configs["reset, beta 0.1"].beta == 0.1
    with pytest.raises(ValueError, match=r"unknown companion 'beta 1'.*beta 0.1"):
        tuning.company(["beta 1"])
    with pytest.raises(ValueError, match="unknown arm 'resets'"):
        tuning.configs(arms, {"reset": "resets"})


def test_other_data_are_asked_with_one_thing_changed():
    bed = tuning.second_bed()
    arms = tuning.carried(bed)
    assert arms["baseline"] == bed and arms["frozen encoder"].freeze_encoder_at == 0
    limits = [arms[a].reset().limits(128, 392) for a in ("reset", "reset, in shares")]
    assert limits == [(1, 2), pytest.approx((0.25, 0.5))]
    assert tuning.carried(bed, {"reset": "baseline"})["reset"] == bed


# --- synergy ---


def test_an_interaction_is_what_is_left_of_a_sum():
    found = tuning.synergy(table(additive), {"decay": 0.75})
    np.testing.assert_allclose(found.alone, ALONE)
    np.testing.assert_allclose(found.beside, ALONE + TOGETHER)
    np.testing.assert_allclose(found.more, TOGETHER)


def test_seeds_that_lack_an_arm_are_left_out():
    data = table(additive)
    data = data[~((data["arm"] == "reset, decay 0.75") & (data["seed"] > 6))]
    assert list(tuning.synergy(data, {"decay": 0.75}).more.index) == list(range(7))


def test_verdicts_follow_the_interaction_not_the_effect():
    judged = tuning.judged(table(additive))
    assert judged["verdict"].to_dict() == {
        "decay 0.75": "supported",
        "decay 0.7": "supported",
        "beta 0.1": "refuted",  # it does nothing at all
        "decay 0.75, beta 0.1": "supported",
        "decay 0.7, beta 0.1": "supported",
    }
    summed = tuning.judged(table(lambda c, s: additive(replace(c, decay=0.9), s) - 30 * c.decay))
    assert summed.loc["decay 0.75", "adds"] == "refuted"  # 4.5 points, below the margin
    assert summed.loc["decay 0.7", "adds"] == "supported"  # 6 points
    assert set(summed["verdict"]) == {"refuted"}  # and it adds up


def test_few_seeds_decide_nothing():
    judged = tuning.judged(table(additive, seeds=range(4)))
    assert set(judged["verdict"]) == set(judged["adds"]) == {"undecided"}
    text = tuning.conclusion(judged.loc["decay 0.75"])
    assert "+4.0 points (too few seeds" in text and "**undecided**, over 4 seeds" in text


# --- main effects and interactions ---


def test_main_effects_are_averages_and_interactions_the_rest():
    crossing = tuning.Crossing("decay", (0.9, 0.5), "dead_code_threshold", (0.5, 1.0), {})

    def value(config, seed):
        low, half = config.decay == 0.5, config.dead_code_threshold == 0.5
        return seed + 10 * low + 3 * half + 4 * (low and half)

    found = crossing.effects(table(value), "utilization")
    assert found["mean"].to_dict() == pytest.approx(
        {"decay 0.5": 12.0, "threshold 0.5": 5.0, "decay 0.5 x threshold 0.5": 4.0}
    )
    assert found["kind"].tolist() == ["main effect", "main effect", "interaction"]
    assert found["low"].to_numpy() == pytest.approx(found["high"].to_numpy())  # seeds cancel


def test_the_table_has_every_main_effect_once_a_crossing():
    data = table(additive)
    shown = tuning.main_effects(data)
    expected = sum(len(c.rows) + len(c.columns) - 2 for c in tuning.CROSSINGS.values())
    assert len(shown) == expected
    row = shown[(shown["averaged in"] == "decay and beta") & (shown["change"] == "decay 0.5")]
    assert row["utilization (points)"].item() == "+13.0 [+13.0, +13.0]"


def test_main_effects_are_sorted_by_what_their_intervals_show():
    found = tuning.summed_up(table(lambda c, s: 60 * (c.beta > 0.2) - 90 * c.decay + s))
    assert "decay 0.5 (in decay and beta)" in found["more"]  # 36 points
    assert "beta 0.1 (in decay and beta)" in found["fewer"]
    assert "threshold 5 (in decay and threshold)" in found["does not matter"]
    assert not found["undecided"] and sum(map(len, found.values())) == 24
    few = tuning.summed_up(table(additive, seeds=range(3)))  # no intervals
    assert len(few["undecided"]) == 24


def test_an_effect_without_an_interval_is_a_bare_number():
    assert effects.bracketed((3.14, math.nan, math.nan), "{:+.1f}") == "+3.1"


# --- choice and regret ---


def test_the_choice_leaves_out_what_costs_reconstruction():
    data = table(lambda c, s: 100 - 50 * c.decay)
    best = "reset, decay 0.5"
    assert tuning.choose(data, SEEDS) in {"decay 0.5", "decay 0.5, beta 0.1", best}
    costly = data["arm"].str.contains("decay 0.5")
    data.loc[costly, "recon_loss"] = 0.031
    assert "0.7" in tuning.choose(data, SEEDS) and "0.75" not in tuning.choose(data, SEEDS)


def test_the_choice_is_blind_to_other_seeds():
    data = table(additive)
    data.loc[(data["arm"] == "baseline") & (data["seed"] >= 5), "perplexity"] = 1e6
    assert tuning.choose(data, tuning.CHOOSING) != "baseline"
    assert tuning.choose(data, tuning.CONFIRMING) == "baseline"


def test_without_luck_there_is_no_regret_and_with_luck_alone_there_is():
    fixed = tuning.regrets(table(lambda c, s: 5 * s - 10 * c.decay), SEEDS)
    assert len(fixed) == math.comb(10, 5)
    assert fixed["regret"].mean() == pytest.approx(0, abs=1e-9)  # hard seeds cancel
    luck = np.random.default_rng(0)
    noise = tuning.regrets(table(lambda c, s: luck.normal()), SEEDS)
    assert noise["regret"].mean() > 0.5
    assert noise["confirming"].mean() == pytest.approx(0, abs=0.3)


# --- fresh against kept ---


def test_deviations_count_the_spread_and_the_number_of_seeds():
    kept = pd.DataFrame({"arm": "reset", "utilization": [0.5, 0.6, 0.7, 0.6]})
    fresh = pd.DataFrame({"arm": "reset", "utilization": [0.8]})
    found = tuning.drift(fresh, kept, ["reset"]).loc["reset"]
    spread = np.std([0.5, 0.6, 0.7, 0.6], ddof=1)
    assert found["deviations"] == pytest.approx(0.2 / (spread * math.sqrt(1 + 1 / 4)))
    assert (found["kept"], found["now"]) == (pytest.approx(0.6), 0.8)


def test_pairs_are_shares_minus_hits_in_each_bed():
    own = {"guide, in hits": 30, "guide, in shares": 50, "0.1, in hits": 60, "0.1, in shares": 61}
    own |= {"short memory, in hits": 40, "short memory, in shares": 30}
    rows = [(bed, a, s, (u + s) / 100) for bed in "xy" for a, u in own.items() for s in range(5)]
    found = tuning.pairs(pd.DataFrame(rows, columns=["bed", "arm", "seed", "utilization"]))
    assert found["mean"].tolist() == pytest.approx([20, 1, -10] * 2)
    assert found["bed"].tolist() == ["x"] * 3 + ["y"] * 3


# --- the trial ---


def test_the_trial_asks_for_every_arm_and_marks_its_bed(monkeypatch):
    asked = []

    def sweep(arms, seeds):
        asked.append((len(arms), len(seeds)))
        rows = [{"arm": a, "seed": s, "problem": ""} for a in arms for s in seeds]
        return pd.DataFrame(rows).assign(**dict.fromkeys(tuning.RESULTS, 0.5))

    monkeypatch.setattr(tune.experiments, "sweep", sweep)
    found = tune.run()
    assert len(found) == sum(arms * seeds for arms, seeds in asked)
    home = found[found["bed"] == "home"]
    assert set(home["arm"]) == set(tuning.grid())
    assert set(found["bed"]) == {"home", *tuning.BEDS}
    assert set(tuning.RESULTS.values()) < set(found.columns)


def test_the_kept_trial_is_whole():
    kept = trials.read("tune")
    home = kept[kept["bed"] == "home"]
    seeds = home.groupby("arm")["seed"].agg(set)
    assert set(seeds.index) == set(tuning.grid())
    assert all(found >= set(tune.SEEDS) for found in seeds)
    assert all(seeds[arm] == set(tune.CLAIM_SEEDS) for arm in tuning.claim_arms())
    away = kept[kept["bed"] != "home"].groupby("bed")["arm"].agg(set)
    assert away.to_dict() == {bed: set(tuning.TRAVELLERS) for bed in tuning.BEDS}
    assert kept.drop(columns=["bed", "arm"]).notna().all(axis=None)


def test_what_travels_as_a_short_memory_is_what_the_kept_trial_chose():
    chosen = tuning.choose(trials.read("tune").query("bed == 'home'"), tuning.CHOOSING)
    travels = replace(tuning.HOME, **tuning.TRAVELLERS["short memory, in hits"])
    config = tuning.grid()[chosen]
    assert config.decay == travels.decay
    assert config.reset().limits(128, 1568) == travels.reset().limits(128, 1568)


def test_the_kept_trial_decides_by_the_rule():
    """No claim is judged on fewer seeds than give an interval."""
    judged = tuning.judged(trials.read("tune").query("bed == 'home'"))
    assert (judged["seeds"] >= effects.FEWEST).all()
