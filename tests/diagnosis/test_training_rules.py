"""Rules on encoder, drift, loss, evaluation and ranks."""

import numpy as np
import pandas as pd
import pytest

from tests.diagnosis.histories import SETTINGS, K, changed, healthy, using
from vqlib import diagnose


def answer(table, finding, **settings):
    return diagnose(table, **(SETTINGS | settings))[finding]


@pytest.mark.parametrize(
    ("similarity", "std", "severity"),
    [
        (0.6, 0.1, "clear"),
        (0.88, 0.1, "warning"),
        (0.97, 0.1, "critical"),
        (0.92, 0.005, "critical"),
        (0.5, 0.005, "clear"),
    ],
)
def test_encoder_by_the_guides_levels(similarity, std, severity):
    table = changed(using(60), encoder_similarity=similarity, encoder_std=std)
    assert answer(table, "encoder-collapse").severity == severity


def test_alike_outputs_that_the_codes_tell_apart_are_a_note():
    found = answer(changed(healthy(), encoder_similarity=0.99), "encoder-collapse")
    assert found.severity == "note" and "tell them apart" in found.cause


def test_drift_is_fast_where_outputs_leave_their_cell_in_few_steps():
    # 1 - cos = 0.003 is 4.44 degrees: at 0.5 degrees a step, 9 steps
    found = answer(changed(using(60), drift=0.5), "encoder-drift")
    assert found.severity == "warning"
    assert found.evidence[1].value == pytest.approx(8.88, abs=0.01)
    assert answer(changed(healthy(), drift=0.5), "encoder-drift").severity == "note"
    assert answer(healthy(), "encoder-drift").severity == "clear"
    assert answer(changed(using(60), drift=0.0), "encoder-drift").severity == "clear"


def test_drift_without_the_size_of_a_cell():
    table = changed(using(60), cosine_error=None)
    assert answer(changed(table, drift=0.9), "encoder-drift").severity == "warning"
    assert answer(changed(table, drift=0.1), "encoder-drift").severity == "clear"
    assert answer(changed(table, drift=None), "encoder-drift").severity == "unknown"


def test_a_loss_that_ends_in_nan_or_infinity():
    for broken in (np.nan, np.inf):
        table = healthy()
        table.loc[(table["split"] == "train") & (table["step"] > 180), "recon_loss"] = broken
        found = answer(table, "unstable-training")
        assert found.severity == "critical" and "after step 180" in str(found.evidence[0])


def test_a_loss_that_is_logged_now_and_then_is_not_broken():
    table = healthy()
    table.loc[(table["split"] == "train") & (table["step"] % 10 > 0), "recon_loss"] = np.nan
    assert answer(table, "unstable-training").severity == "clear"
    table.loc[199, "recon_loss"] = np.nan
    assert answer(table, "unstable-training").severity == "clear"


def test_spikes_warn_and_a_loss_that_rises_for_good_is_critical():
    table = healthy()
    table.loc[[80, 120, 160], "recon_loss"] = 2.0
    assert answer(table, "unstable-training").severity == "warning"
    table.loc[[80, 120], "recon_loss"] = 0.02
    assert answer(table, "unstable-training").severity == "clear"
    rising = healthy()
    rising.loc[rising["step"] > 150, "recon_loss"] = 0.5
    assert answer(rising, "unstable-training").severity == "critical"


def test_a_small_loss_beside_a_collapse():
    assert answer(using(60), "loss-hides-collapse").severity == "note"
    assert answer(healthy(), "loss-hides-collapse").severity == "clear"
    assert answer(changed(using(60), commit_loss=0.3), "loss-hides-collapse").severity == "clear"


def test_a_measured_change_by_evaluation_decides():
    found = answer(changed(healthy(), "val", eval_change=0.2), "evaluation-changes-counts")
    assert found.severity == "critical"
    assert answer(healthy(), "evaluation-changes-counts").severity == "clear"


def test_that_an_evaluation_changes_nothing_is_said_of_codes_and_counts_alone():
    answer = diagnose(healthy(), codebook_size=K)
    assert answer["evaluation-changes-counts"].severity == "clear"
    for shown in (" ".join(str(answer).split()), answer._repr_html_()):
        assert "evaluation-changes-counts: Codes and counts were compared" in shown
    by_time = diagnose(jumping(0.0, 15), codebook_size=K)
    assert by_time["evaluation-changes-counts"].severity == "clear"
    assert "Codes and counts were compared" not in str(by_time)


def jumping(height: float, fades: int, every: int = 50) -> pd.DataFrame:
    """Use that jumps after each validation, and falls back over ``fades`` steps."""
    table = healthy(steps=400, val_every=every)
    noise = np.random.default_rng(0).normal(0, 5, len(table))
    since = (table["step"] - 1) % every
    rise = np.where(table["step"] > every, height * np.maximum(0, 1 - since / fades), 0)
    codes = np.clip(200 + noise + rise * K, 0, K).round()
    return changed(table, used_codes=codes, utilization=codes / K, eval_change=None)


def test_a_jump_after_each_validation_that_falls_back_is_found_by_time():
    found = answer(jumping(0.5, 15), "evaluation-changes-counts")
    assert found.severity == "warning"
    assert found.cause.startswith("Use rises right after validations")  # what was seen, no more


def test_noise_and_a_slow_rise_are_no_such_jump():
    assert answer(jumping(0.0, 15), "evaluation-changes-counts").severity == "clear"
    table = changed(healthy(steps=400), eval_change=None)
    codes = np.linspace(100, 500, len(table)).round()
    assert answer(using(codes, table), "evaluation-changes-counts").severity == "clear"


def test_a_rise_after_each_validation_that_stays_is_no_such_jump():
    table = changed(healthy(steps=800, val_every=100), eval_change=None)
    stairs = 60 + 50 * ((table["step"] - 1) // 100)
    assert answer(using(stairs, table), "evaluation-changes-counts").severity == "clear"


def test_jumps_at_other_times_are_not_the_validations_fault():
    table = jumping(0.5, 15)
    table.loc[table["split"] == "val", "step"] += 25  # validations lie between the jumps
    assert answer(table, "evaluation-changes-counts").severity == "clear"


def test_rows_too_far_apart_to_see_a_jump():
    table = changed(healthy(steps=4000, every=20, val_every=500), eval_change=None)
    assert answer(table, "evaluation-changes-counts").severity == "unknown"


def test_ranks():
    assert answer(healthy(), "ranks-disagree").severity == "unknown"
    table = changed(healthy(), rank_difference=0.0)
    assert answer(table, "ranks-disagree").severity == "clear"
    assert answer(changed(table, rank_difference=0.1), "ranks-disagree").severity == "critical"


def test_the_quantizers_loss_stands_in_where_no_other_was_logged():
    table = changed(healthy(), recon_loss=np.nan)
    assert answer(table, "unstable-training").severity == "clear"
    assert answer(changed(table, commit_loss=None), "unstable-training").severity == "unknown"
    table.loc[table["step"] > 150, "commit_loss"] = 1.0  # it begins at nothing, and rises rightly
    assert answer(table, "unstable-training").severity == "clear"
    table.loc[table["step"] > 150, "commit_loss"] = np.nan
    assert answer(table, "unstable-training").severity == "critical"


@pytest.mark.parametrize(
    ("loss", "severity"),
    [
        (lambda s: 0.02 * (1 + 0.8 * np.sin(s / 20)), "clear"),  # a cyclic rate
        (lambda s: np.where(s > 150, 0.006, 0.001), "warning"),  # another term switched on
        (lambda s: np.full(len(s), -3.0), "clear"),  # a likelihood
        (lambda s: np.full(len(s), np.inf), "critical"),
        (lambda s: np.where((s % 5 == 0) | (s > 150), np.nan, 0.02), "critical"),
        (lambda s: np.where(s == 200, np.nan, 0.02), "clear"),  # one skipped row
    ],
)
def test_losses_of_many_shapes(loss, severity):
    table = healthy()
    train = table["split"] == "train"
    table.loc[train, "recon_loss"] = loss(table.loc[train, "step"].to_numpy())
    assert answer(table, "unstable-training").severity == severity


@pytest.mark.parametrize(
    ("change", "severity"), [(1e-7, "clear"), (7e-4, "clear"), (0.05, "critical")]
)
def test_rounding_in_evaluation_accuses_nobody(change, severity):
    table = changed(healthy(), "val", eval_change=change)
    assert answer(table, "evaluation-changes-counts").severity == severity


def test_similar_outputs_are_no_collapse_where_use_is_not_known():
    table = changed(healthy(), encoder_similarity=0.97, encoder_std=0.3, utilization=None)
    assert diagnose(table)["encoder-collapse"].severity == "warning"


def test_huge_steps_are_no_huge_memory():
    table = changed(healthy(), eval_change=None)
    table["step"] = table["step"] * 10**10
    assert answer(table, "evaluation-changes-counts").severity == "unknown"


# --- dimensions ---


def flat(code=None, encoder=None, table=None):
    table = healthy() if table is None else table
    table = changed(table, encoder_rank=None, code_rank=None)
    if encoder is not None:
        table["encoder_rank"] = encoder
    if code is not None:
        table.loc[table["split"] == "val", "code_rank"] = code
    return table


@pytest.mark.parametrize(
    ("code", "encoder", "severity"),
    [
        (20.0, 30.0, "clear"),
        (5.0, 8.0, "clear"),  # what short runs of the suite's own model show
        (2.0, 3.0, "warning"),
        (2.0, 30.0, "warning"),
        (None, 2.0, "note"),
        (2.0, None, "warning"),
        (20.0, None, "clear"),
        (None, None, "unknown"),
    ],
)
def test_vectors_in_few_of_their_dimensions(code, encoder, severity):
    assert answer(flat(code, encoder), "dimensional-collapse").severity == severity


def test_flat_codes_of_a_full_encoder_have_another_cause():
    full = answer(flat(1.5, 30.0), "dimensional-collapse")
    both = answer(flat(1.5, 2.0), "dimensional-collapse")
    assert "narrower" in full.cause and "projection" in full.remedy
    assert "autoencoder" in both.remedy and both.cause != full.cause
    names = [e.name for e in both.evidence]
    assert names[:2] == ["code_rank", "encoder_rank"] and both.evidence[2].value < 64


@pytest.mark.parametrize("dim", [1, 2, 4, 8, 16])
def test_few_dimensions_by_design_are_no_collapse(dim):
    found = answer(flat(1.0, 1.0), "dimensional-collapse", dim=dim)
    assert found.severity == "not applicable"


def test_few_codes_or_tokens_bound_the_rank():
    few = flat(1.0, table=using(6))
    assert answer(few, "dimensional-collapse").severity == "not applicable"
    tokens = changed(flat(encoder=1.0), window_tokens=16)
    assert answer(tokens, "dimensional-collapse").severity == "not applicable"


def test_published_ranks_at_512_dimensions():
    for rank, severity in ((5.0, "warning"), (18.0, "clear")):
        assert answer(flat(rank, rank), "dimensional-collapse", dim=512).severity == severity


def test_a_grid_has_all_its_dimensions_and_without_d_nothing_is_said():
    grid = flat(encoder=1.0).assign(fixed_grid=1.0)
    assert answer(grid, "dimensional-collapse").severity == "not applicable"
    found = answer(flat(1.0, 1.0), "dimensional-collapse", dim=None)
    assert found.severity == "unknown" and found.remedy == "dim, D"


def test_d_may_be_a_column_and_ranks_may_bear_other_names(tmp_path):
    table = flat(1.5, 2.0).rename(
        columns={"code_rank": "codebook_effective_rank", "encoder_rank": "encoder/effective_rank"}
    )
    table.assign(codebook_dim=64).to_csv(tmp_path / "log.csv", index=False)
    found = diagnose(tmp_path / "log.csv", codebook_size=K)
    assert found["dimensional-collapse"].severity == "warning"
    assert any(line.startswith("code_rank <- codebook_effective_rank") for line in found.understood)


# --- the two gradients ---


def balanced(*ratios, every=10):
    """A healthy history in which the ratio was measured at every tenth step."""
    table = healthy(steps=every * len(ratios)).assign(commit_gradient_ratio=np.nan)
    rows = table["step"].isin(np.arange(1, len(ratios) + 1) * every) & (table["split"] == "train")
    table.loc[rows, "commit_gradient_ratio"] = ratios
    return table


def ratio_answer(table):
    return answer(table, "commitment-outweighs-reconstruction")


@pytest.mark.parametrize(
    ("ratios", "severity"),
    [
        ([0.4] + [0.05] * 19, "clear"),
        ([4.0] * 20, "clear"),
        ([20.0] * 20, "warning"),
        ([20.0] * 8 + [0.3] * 12, "note"),  # the encoder gave in
        ([1e4, 0.3] + [0.05] * 18, "clear"),  # a beginning, not a stretch
        ([0.1, 0.1, 50.0] * 7, "clear"),
        ([20.0] * 2, "unknown"),
        ([np.nan] * 20, "unknown"),
    ],
)
def test_a_loss_that_outweighs_the_reconstruction(ratios, severity):
    assert ratio_answer(balanced(*ratios)).severity == severity


def test_a_history_without_the_ratio_says_what_it_takes():
    found = ratio_answer(changed(healthy(), commit_gradient_ratio=None))
    assert found.severity == "unknown" and found.remedy.startswith("commit_gradient_ratio")


def test_what_it_shows():
    found = ratio_answer(balanced(*[20.0] * 8, *[0.3] * 12))
    assert [e.value for e in found.evidence[:2]] == [pytest.approx(0.3), 20.0]
    assert found.evidence[1].window == "train, median of steps 10 to 30"
    assert "given in" in found.cause and "balance the losses" in found.remedy


def test_where_hardly_anything_is_left_to_reconstruct_the_ratio_says_nothing():
    table = balanced(*[0.2] * 5, *[50.0] * 15)
    assert ratio_answer(table).severity == "warning"
    late = table["step"] > 50
    table.loc[late, "recon_loss"] = 1e-5
    assert ratio_answer(table).severity == "clear"
    table["recon_loss"] = table["recon_loss"].where(late, 1e-9)  # from a perfect beginning
    assert ratio_answer(table).severity == "warning"
