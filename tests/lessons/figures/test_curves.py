"""Figures show the data they are given, and an arm looks the same everywhere."""

import numpy as np
import pandas as pd
import pytest
import torch

from vqlib.lessons.figures import curves, pictures
from vqlib.lessons.guide import CURVE_BEFORE
from vqlib.training.experiments import ARMS


@pytest.fixture
def table():
    """Two arms, three seeds, four steps; arm b lies 0.1 above arm a."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "step": step,
            "split": "train",
            "drift": 1.0 * step,
            "utilization": 0.1 * seed + 0.1 * (arm == "reset") + 0.01 * step,
        }
        for arm in ("baseline", "reset")
        for seed in range(3)
        for step in range(1, 5)
    ]
    return pd.DataFrame(rows)


def line(ax, label):
    (found,) = [x for x in ax.lines if x.get_label() == label]
    return found


def test_each_arm_of_the_suite_has_a_look_of_its_own():
    looks = [curves.LOOKS[name] for name in ARMS if name in curves.LOOKS]
    assert set(ARMS) <= set(curves.LOOKS)
    pairs = [(x.color, x.marker, x.line) for x in looks]
    assert len(set(pairs)) == len(pairs)


def test_the_thick_line_is_the_median_over_seeds(table):
    ax = curves.utilization_curves(table)
    np.testing.assert_allclose(line(ax, "baseline").get_ydata(), [0.11, 0.12, 0.13, 0.14])
    np.testing.assert_allclose(line(ax, "reset").get_ydata(), [0.21, 0.22, 0.23, 0.24])


def test_the_guides_points_stand_where_the_guide_put_them(table):
    stars = line(curves.utilization_curves(table), "the guide")
    assert dict(zip(stars.get_xdata(), stars.get_ydata(), strict=True)) == CURVE_BEFORE
    labels = [x.get_label() for x in curves.utilization_curves(table, guide=False).lines]
    assert "the guide" not in labels


def test_histograms_share_their_axes_and_tell_the_unused():
    counts = {"baseline": torch.tensor([8, 0, 0, 2]), "reset": torch.tensor([3, 3, 2, 2])}
    left, right = curves.use_histograms(counts).axes
    assert left.get_ylim() == right.get_ylim() and left.get_xlim() == right.get_xlim()
    assert left.texts[0].get_text() == "2 of 4\nunused"
    assert right.texts[0].get_text() == "0 of 4\nunused"


def test_the_count_map_puts_the_longest_lived_code_first():
    sizes = torch.tensor([[0.0, 5.0], [0.0, 5.0], [0.0, 0.0]])  # code 1 outlives code 0
    image = curves.count_map(sizes, torch.tensor([1, 2, 3])).axes[0].images[0].get_array()
    np.testing.assert_allclose(image[0], np.log10([5, 5, 1e-3]), rtol=1e-6)


def test_effects_draw_the_mean_of_each_arm():
    rows = [("baseline", 0, 0.1), ("baseline", 1, 0.3), ("reset", 0, 0.8), ("reset", 1, 0.9)]
    data = pd.DataFrame(rows, columns=["arm", "seed", "value"])
    ax = curves.effects(data, "value", "baseline")
    means = [c.lines[0].get_xdata()[0] for c in ax.containers]
    np.testing.assert_allclose(means, [0.2, 0.85])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["baseline", "reset"]


def test_reset_bars_stack_first_and_repeated_resets():
    history = pd.DataFrame(
        {
            "step": [1, 2],
            "split": "train",
            "resets": [5, 3],
            "re_resets": [0, 2],
            "survived": [np.nan, 0.5],
        }
    )
    first, repeated = curves.reset_activity(history, 64).axes[0].containers
    assert [b.get_height() for b in first] == [5, 1]
    assert [b.get_height() for b in repeated] == [0, 2]


def test_lives_mark_each_reset_of_a_code():
    trace = {
        "steps": torch.arange(1, 6),
        "cluster_size": torch.rand(5, 8),
        "reset_events": torch.tensor([[2, 7, 0], [4, 7, 1], [4, 3, 2]]),
    }
    panels = curves.reset_lives(trace, threshold=1.0, codes=2).axes
    assert panels[0].get_title(loc="left") == "code 7: 2 resets"
    assert panels[1].get_title(loc="left") == "code 3: 1 reset"
    np.testing.assert_array_equal(panels[0].lines[1].get_xdata(), [2, 4])


def test_lives_of_a_run_without_resets_are_empty_panels():
    trace = {"steps": torch.arange(2), "cluster_size": torch.rand(2, 4)}
    assert not any(ax.lines for ax in curves.reset_lives(trace, threshold=1.0).axes)


def test_drift_skips_steps_without_a_look(table):
    table.loc[table["step"] % 2 == 1, "drift"] = np.nan
    assert list(line(curves.drift_curves(table), "baseline").get_xdata()) == [2, 4]


def test_a_plane_separates_used_codes_from_unused():
    books, probes = torch.randn(2, 6, 4), torch.randn(2, 9, 4)
    counts = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]])
    figure = curves.drift_view(books, probes, counts, [0, 100])
    dead, used = figure.axes[1].lines[1:]
    assert len(dead.get_xdata()) == 5 and len(used.get_xdata()) == 1
    assert figure.axes[1].get_title(loc="left") == "step 100: 17% used"


def test_similar_codes_get_similar_colors():
    codebook = torch.nn.functional.normalize(torch.randn(32, 8), dim=-1)
    codebook[1] = codebook[0] + 1e-4
    colors = pictures.code_colors(codebook)
    assert colors.shape == (32, 3) and colors.min() >= 0 and colors.max() <= 1
    assert np.abs(colors[0] - colors[1]).max() < 0.07


def test_reconstructions_carry_their_own_error():
    shown = torch.rand(2, 1, 8, 8)
    figure = pictures.reconstructions(shown, {"arm": shown + 0.1})
    assert [ax.get_xlabel() for ax in figure.axes[2:]] == ["MSE 0.0100"] * 2


def test_token_maps_count_their_codes():
    shown = torch.rand(1, 3, 8, 8)
    figure = pictures.token_maps(
        shown, {"a": torch.tensor([[[0, 1], [1, 3]]])}, {"a": torch.randn(4, 5)}
    )
    assert figure.axes[1].get_xlabel() == "3 codes"


def test_the_confusion_matrix_frames_what_a_fault_must_lead_to():
    table = pd.DataFrame(
        {
            "runs": [3, 2],
            "by": "history",
            "must find": ["nothing critical", "reset-churn"],
            "found": [0.0, 1.0],
            "cold-start": [0.0, 0.5],
            "reset-churn": [0.0, 1.0],
            "duplicate-codes": [0.0, 0.0],
        },
        index=["healthy", "planted"],
    )
    (ax,) = curves.confusion(table).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cold-start", "reset-churn"]
    assert [t.get_text() for t in ax.texts] == ["0", "0", "50", "100"]
    (frame,) = ax.patches
    assert frame.get_xy() == (1, 1)
