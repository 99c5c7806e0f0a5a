"""Rules on use: each fires where it should, is clear where it should, and says what it needs."""

import numpy as np
import pandas as pd
import pytest

from tests.diagnosis.histories import SETTINGS, K, changed, healthy, using
from vqlib import diagnose
from vqlib.quantization import usage


def answer(table, finding, **settings):
    return diagnose(table, **(SETTINGS | settings))[finding]


@pytest.mark.parametrize(
    ("codes", "severity"),
    [
        (60, "critical"),
        (127, "critical"),
        (130, "warning"),
        (255, "warning"),
        (258, "clear"),
        (512, "clear"),
    ],
)
def test_collapse_is_judged_by_the_share_in_use(codes, severity):
    assert answer(using(codes), "codebook-collapse").severity == severity


def test_validation_decides_where_there_is_one():
    table = using(60, split="val")
    assert answer(table, "codebook-collapse").severity == "critical"
    assert answer(table[table["split"] == "train"], "codebook-collapse").severity == "clear"


def test_a_collapse_tells_from_how_many_codes_it_fell():
    table = healthy()
    table = using(np.linspace(500, 40, len(table)).astype(int), table)
    found = answer(table, "codebook-collapse")
    assert "fell from 500 to" in found.cause
    assert [e.value for e in found.evidence if e.name == "most codes ever used"] == [500]


def test_a_codebook_that_was_never_in_use_is_told_apart():
    assert "never came into use" in answer(using(30), "codebook-collapse").cause


@pytest.mark.parametrize(
    ("train", "val", "says"),
    [
        (np.linspace(0.9, 0.19, 8), None, "fell from 90% to 19% of the codebook"),
        (np.linspace(0.7, 0.42, 50), None, "fell from 70% to 43% of the codebook"),
        (np.full(50, 0.3), None, "never came into use"),
        (np.full(50, 0.9), 0.2, "validation alone does not"),
        (np.full(50, 0.3), 0.2, "never came into use"),
    ],
)
def test_shares_alone_tell_the_course_as_well(train, val, says):
    rows = [{"step": i + 1, "split": "train", "utilization": u} for i, u in enumerate(train)]
    rows += [{"step": len(train), "split": "val", "utilization": val}] if val else []
    assert says in diagnose(pd.DataFrame(rows))["codebook-collapse"].cause


def test_the_remedy_is_in_this_runs_numbers():
    found = answer(changed(using(30), resets=0), "codebook-collapse", dead_code_threshold=0)
    assert "below 1.2 hits a step (0.1 of the uniform share N/K = 12.25)" in found.remedy
    slow = answer(using(30), "codebook-collapse", decay=0.99)
    assert slow.remedy.endswith("lower the decay (0.99 remembers 100 steps) to 0.9 or less")
    assert "decay" not in found.remedy
    with_reset = answer(using(30), "codebook-collapse")
    assert "a reset is on but does not help enough" in with_reset.remedy


@pytest.mark.parametrize("threshold", [None, 0])
def test_a_reset_that_was_seen_is_not_to_be_turned_on(threshold):
    for found in diagnose(using(30), **(SETTINGS | {"dead_code_threshold": threshold})).findings:
        assert "turn on" not in found.remedy, found.id


def test_use_is_set_beside_what_the_window_could_show():
    size, tokens = 8192, 1600  # uniform use shows 17.7 %
    codes = round(0.9 * size * usage.uniform_utilization(size, tokens))
    table = changed(healthy(), used_codes=codes, utilization=codes / size, window_tokens=tokens)
    settings = {"codebook_size": size, "tokens_per_step": tokens}
    assert answer(table, "codebook-collapse", **settings).severity == "clear"
    table = changed(table, used_codes=codes // 6, utilization=codes / 6 / size)
    assert answer(table, "codebook-collapse", **settings).severity == "critical"


def test_without_k_a_fall_still_proves_a_collapse():
    table = changed(healthy(), utilization=None, top_code_ratio=None)
    table = table.assign(used_codes=np.linspace(500, 20, len(table)))
    found = diagnose(table)
    assert found["codebook-collapse"].severity == "critical"
    flat = diagnose(table.assign(used_codes=300))["codebook-collapse"]
    assert flat.severity == "unknown" and "codebook_size" in flat.remedy


def test_gap_compares_windows_of_different_size_fairly():
    size = 1024
    tokens = {"train": 1600, "val": 100_000}
    table = changed(healthy(), "train", window_tokens=tokens["train"])
    table = changed(table, "val", window_tokens=tokens["val"])
    for split, n in tokens.items():  # uniform use in both, so 79 % and 100 % are no gap
        share = usage.uniform_utilization(size, n)
        table = changed(table, split, used_codes=round(share * size), utilization=share)
    settings = {"codebook_size": size, "tokens_per_step": 1600}
    assert answer(table, "train-validation-gap", **settings).severity == "clear"


@pytest.mark.parametrize(
    ("codes", "severity"), [(440, "clear"), (400, "warning"), (300, "critical")]
)
def test_gap_levels(codes, severity):
    assert answer(using(codes, split="val"), "train-validation-gap").severity == severity


def test_gap_without_windows_is_not_decided():
    table = changed(using(300, split="val"), window_tokens=None)
    found = answer(table, "train-validation-gap", tokens_per_step=None)
    assert found.severity == "unknown" and "window_tokens" in found.remedy


def test_a_smaller_validation_window_shows_fewer_codes_by_itself():
    generator = np.random.default_rng(0)
    use = np.exp(generator.normal(0, 1.5, K))
    use /= use.sum()
    table = healthy()
    for split, tokens in (("train", 100 * K), ("val", K)):
        codes = int((generator.multinomial(tokens, use) > 0).sum())
        table = changed(using(codes, table, split), split, window_tokens=tokens)
    assert answer(table, "train-validation-gap").severity == "unknown"


def test_an_old_validation_does_not_outrank_training():
    table = pd.DataFrame(
        {
            "step": [0, 100, 200, 300],
            "split": ["val", *["train"] * 3],
            "used_codes": [10, 480, 480, 480],
        }
    )
    found = diagnose(table, codebook_size=K)
    assert found["codebook-collapse"].severity == "clear"
    assert found["train-validation-gap"].severity == "unknown"


def test_more_codes_than_a_step_has_tokens_are_of_a_larger_window():
    table = changed(healthy(), used_codes=500, utilization=None, window_tokens=None)
    found = answer(table, "codebook-collapse", codebook_size=8192, tokens_per_step=64)
    assert found.severity == "unknown" and found.remedy == "window_tokens"


def test_a_collapse_at_the_very_end_is_seen():
    table = healthy(steps=2000, val_every=10**6)
    table["used_codes"] = np.where(table["step"] > 1960, 10, 460)
    found = answer(changed(table, utilization=None), "codebook-collapse")
    assert found.severity == "critical" and found.evidence[0].value == 10


def test_the_beginning_is_not_told_where_it_is_not_in_the_data():
    table = using(20)
    table["step"] += 50_000
    assert "does not show the start" in answer(table, "codebook-collapse").cause


def test_resets_that_do_not_keep_up_are_not_said_to_be_missing():
    table = using(np.linspace(410, 20, len(healthy())).astype(int))
    assert "the resets do not keep up" in answer(table, "codebook-collapse").cause


@pytest.mark.parametrize(
    ("resets", "threshold", "said"),
    [
        (None, None, "whether a reset brings it back is not in the data"),
        (0, None, "no reset was seen"),
        (None, 0, "the reset is off"),
    ],
)
def test_of_resets_no_more_is_said_than_is_known(resets, threshold, said):
    table = using(
        np.linspace(410, 20, len(healthy())).astype(int), changed(healthy(), resets=resets)
    )
    found = answer(table, "codebook-collapse", dead_code_threshold=threshold)
    assert said in found.cause
    assert found.remedy.startswith("turn on" if threshold == 0 else "if no reset is on, turn on")


def test_gap_names_codes_that_were_just_reset():
    table = changed(using(300, split="val"), mature_utilization=0.55)
    assert "reset moments ago" in answer(table, "train-validation-gap").cause


@pytest.mark.parametrize(
    ("ratio", "severity"), [(5.0, "clear"), (0.12 * K, "warning"), (0.6 * K, "critical")]
)
def test_top_code_by_its_share_of_the_tokens(ratio, severity):
    assert answer(changed(healthy(), top_code_ratio=ratio), "top-code-dominates").severity == (
        severity
    )


def test_few_effective_codes_are_named_though_all_are_used():
    assert answer(changed(healthy(), perplexity=60.0), "top-code-dominates").severity == "warning"


@pytest.mark.parametrize(
    ("size", "share", "severity"),
    [
        (2, 0.6, "clear"),
        (2, 0.9, "warning"),
        (2, 0.999, "critical"),
        (4, 0.99, "critical"),
        (8, 0.61, "warning"),
        (8, 0.62, "warning"),
        (64, 0.61, "critical"),
    ],
)
def test_dominance_in_small_codebooks(size, share, severity):
    table = changed(
        healthy(),
        used_codes=min(size, 7),
        utilization=min(size, 7) / size,
        top_code_ratio=share * size,
        perplexity=None,
    )
    assert answer(table, "top-code-dominates", codebook_size=size).severity == severity


@pytest.mark.parametrize(
    ("tokens", "severity"), [(6272, "clear"), (1100, "note"), (300, "warning")]
)
def test_small_windows(tokens, severity):
    table = changed(using(100), window_tokens=tokens)
    assert answer(table, "window-too-small").severity == severity


def test_the_window_that_is_needed_is_given_in_tokens_and_steps():
    table = changed(using(100), window_tokens=300)
    found = answer(table, "window-too-small", tokens_per_step=300)
    assert "at least 1534 tokens (usage_window=6)" in found.remedy  # -ln(0.05) x 512
    assert usage.uniform_utilization(K, 1534) >= 0.95


def by_perplexity(perplexity, **settings):
    table = pd.DataFrame({"step": [100, 200, 300], "split": "train", "perplexity": perplexity})
    return diagnose(table, codebook_size=K, **settings)["codebook-collapse"]


@pytest.mark.parametrize(
    ("perplexity", "tokens", "severity"),
    [
        (47.3, 8192, "warning"),
        (47.3, 512, "unknown"),  # a step of so few tokens shows few codes
        (47.3, None, "unknown"),
        (200, 8192, "unknown"),  # rare codes may be alive
        (300, None, "clear"),  # more than half of 512 are in use, whatever the window
    ],
)
def test_perplexity_alone_bounds_the_codes_in_use_from_below(perplexity, tokens, severity):
    found = by_perplexity(perplexity, tokens_per_step=tokens)
    assert found.severity == severity
    if severity == "warning":
        assert [e.value for e in found.evidence] == [pytest.approx(47.3 / K), "at least 48"]
    if severity == "unknown":
        assert "used_codes" in found.remedy


@pytest.mark.parametrize(
    ("perplexity", "severity"),
    [
        ([300, 200, 100, 60, 40, 30], "warning"),
        ([30, 40, 35, 45, 40, 38], "unknown"),  # it was never more even
        ([20, 300, 60, 90, 80, 100], "unknown"),  # one row stands out
    ],
)
def test_perplexity_alone_can_tell_a_fall(perplexity, severity):
    table = pd.DataFrame({"step": range(6), "split": "train", "perplexity": perplexity})
    found = diagnose(table, codebook_size=K)["codebook-collapse"]
    assert found.severity == severity
    if severity == "warning":
        assert "as if 300 shared it" in found.cause and "as if 35 did" in found.cause
    alone = diagnose(table)["codebook-collapse"]
    assert alone.severity == "unknown"
    assert ("If the perplexity is the codebook's" in alone.cause) == (severity == "warning")


def test_perplexity_alone_can_tell_that_one_code_has_half_of_the_tokens():
    table = pd.DataFrame({"step": [1, 2], "split": "train", "perplexity": [1.5, 1.5]})
    assert diagnose(table, codebook_size=K)["top-code-dominates"].severity == "critical"
    assert by_perplexity(47.3).severity == "unknown"
