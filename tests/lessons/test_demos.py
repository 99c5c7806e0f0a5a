"""The lessons' demonstrations: a target not reached at the start, within reach; live controls."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from vqlib.lessons import demos
from vqlib.playground import Choice, Slider


def two_arms(ratios):
    """Histories of two arms, whose errors have these ``ratios`` (validations, seeds)."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "split": "val",
            "step": 50 * (place + 1),
            "recon_loss": ratio if arm == "reset" else 1.0,
            "utilization": 0.9 if arm == "reset" else 0.2,
            "perplexity": 300.0 if arm == "reset" else 60.0,
        }
        for arm in ("baseline", "reset")
        for place, at in enumerate(ratios)
        for seed, ratio in enumerate(at)
    ]
    return pd.DataFrame(rows)


# on the first seed best at 250, in the mean over seeds at 200
LATE = [[1.1, 1.0, 0.9], [0.9, 0.9, 0.9], [1.1, 0.9, 0.9], [0.8, 0.7, 0.8], [0.7, 0.9, 0.9]]
K = 512
COLLAPSE = pd.DataFrame(
    {
        "step": np.arange(1, 201),
        "split": "train",
        "used_codes": 50,
        "perplexity": 40.0,
        "window_tokens": 6272,
        "top_code_ratio": 60.0,
        "drift": 2.0,
        "resets": 0,
        "re_resets": 0,
        "survived": np.nan,
        "encoder_similarity": 0.5,
        "encoder_std": 0.1,
        "longest_code": 1.0,
        "recon_loss": np.linspace(0.1, 0.02, 200),
        "commit_loss": 5e-5,
    }
)
ASKED = {"tokens": 1200, "codes": 4096}
ERROR = {"measure": "reconstruction error"}


def two_beds():
    """Three arms on two beds: by perplexity and top code one wins, by error another."""
    arms = {"nothing": (10.0, 20.0, 0.03), "even": (90.0, 3.0, 0.02), "exact": (50.0, 9.0, 0.01)}
    rows = [
        {"bed": bed, "arm": arm, "seed": seed, "knobs": 0 if arm == "nothing" else 2}
        | {"perplexity": p + seed, "top_code_ratio": top, "error": error, "wobble": error}
        for bed in ("model", "latents")
        for arm, (p, top, error) in arms.items()
        for seed in range(2)
        if bed == "model" or arm != "exact"
    ]
    return pd.DataFrame(rows)


FRONT_ACTS = {"nothing": "nothing", "even": "dead codes", "exact": "encoder"}

# {name: (how it is made, settings that miss the target, settings that reach it)}
DEMOS = {
    "window": (
        demos.window,
        [{"skew": 0.0}, {"tokens": 1560.0}, {"tokens": 5000.0, "skew": 0.0}],
        [{"tokens": 1560.0, "skew": 0.0}],
    ),
    "drift": (
        demos.drift,
        [{"drift": 1.0, "decay": 0.0}, {"drift": 2.5, "decay": 0.0}, {"drift": 1.3}],
        [{"drift": 1.25, "decay": d} for d in (0.0, 0.1, 0.2)],
    ),
    "resets": (
        demos.resets,
        [{"threshold": 0.0}, {"threshold": 6.0}, {"threshold": 0.5, "every": 5}],
        [
            {"threshold": 2.0, "every": e, "donors": d, "seed": 2}
            for e in (5, 10)
            for d in ("top", "most_used")
        ],
    ),
    "stopping": (
        lambda: demos.stopping(two_arms(LATE), "baseline", "reset"),
        [{"step": 200}, ERROR | {"step": 100}, ERROR | {"step": 250}],
        [ERROR | {"step": 200}],
    ),
    "calculator": (
        demos.calculator,
        [
            {"tokens": 1200, "codes": 4096},
            ASKED | {"threshold": 0.5},
            ASKED | {"unit": "shares", "threshold": 0.5, "refill": "share"},
            {"unit": "shares", "threshold": 0.1},
        ],
        [ASKED | {"unit": "shares", "threshold": 0.1, "refill": "share"}],
    ),
    "front": (
        lambda: demos.front(two_beds(), FRONT_ACTS, {"perplexity": "top_code_ratio"}),
        [{"y": "top_code_ratio"}, {"y": "perplexity"}, {"x": "knobs"}],
        [{"x": "wobble"}],
    ),
    "columns": (
        lambda: demos.columns(COLLAPSE, K),
        [
            {"resets": True},
            {"drift": True, "loss": True},
            {"resets": True, "drift": True, "usage": True},
        ],
        [{"resets": True, "drift": True}],
    ),
}


@pytest.fixture(scope="module", params=DEMOS)
def made(request):
    make, missed, reached = DEMOS[request.param]
    demo = make()
    return demo, demo.panel.values, missed, reached


@pytest.fixture
def case(made):
    """The demonstration at its start, values that miss the target, values that reach it."""
    demo, start, missed, reached = made
    demo.set(**start)
    yield demo, missed, reached
    plt.close("all")


def test_the_target_is_not_reached_at_the_start(case):
    demo, *_ = case
    assert demo.target and not demo.reached
    assert demo.target in demo.summary() and "not yet" in demo.summary()


def test_the_target_can_be_reached(case):
    """By one of a few settings: processors differ in last bits, and the worlds amplify them."""
    demo, _, winning = case
    summaries = []
    for values in winning:
        demo.set(**values)
        summaries.append(demo.summary())
    assert any("✓ reached" in text for text in summaries), summaries


def test_half_of_it_does_not_reach_the_target(case):
    demo, missed, _ = case
    start = demo.panel.values
    for values in missed:
        demo.set(**start | values)
        assert not demo.reached, values


def test_every_control_changes_the_picture_or_the_words(case):
    demo, *_ = case
    start = demo.panel.values
    for name, value in moved(demo).items():
        demo.set(**start)
        before, words = demo.figure(), demo.summary()
        demo.set(**{name: value})
        assert demo.summary() != words or pixels(demo.figure()) != pixels(before), name


def moved(demo):
    """{name: another value} of each control."""
    return {name: other(control) for name, control in demo.panel.controls.items()}


def other(control):
    if isinstance(control, Slider):
        return control.low if control.value == control.high else control.high
    if isinstance(control, Choice):
        return next(v for v in control.options.values() if v != control.value)
    return not control.value


def pixels(figure):
    figure.set_dpi(30)
    figure.canvas.draw()
    return bytes(figure.canvas.buffer_rgba())


def test_the_summary_names_the_values(case):
    demo, *_ = case
    for name, value in demo.panel.values.items():
        if isinstance(value, float) and name != "seed":
            assert f"{value:g}" in demo.summary().replace(",", ""), name


def test_one_seed_and_arms_that_are_equal_are_no_crash():
    demo = demos.stopping(two_arms([[1.0], [1.0]]), "baseline", "reset")
    demo.set(**ERROR)
    assert not demo.reached and "0 of 1 seed" in demo.summary()
    twice = two_arms([[1.0], [1.0]]).query("arm == 'reset'")
    same = demos.stopping(twice, "reset", "reset")
    same.set(step=50)
    assert "1.00 x the utilization" in same.summary()


def test_a_log_without_some_columns_can_be_read():
    demo = demos.columns(COLLAPSE.drop(columns="commit_loss"), K)
    demo.set(loss=True, codes=True, every=50)
    assert "codebook-collapse" in demo.summary()


def test_the_calculator_says_what_the_reset_itself_computes():
    demo = demos.calculator()
    demo.set(tokens=1200, codes=4096, threshold=2.0)
    assert "0.293" in demo.summary() and "14.6 % of the codes" in demo.summary()
    assert "lives for 4 step(s)" in demo.summary()  # 3 x 0.9^4 is below 2, 3 x 0.9^3 is not


def test_a_refill_below_the_threshold_is_refused_beside_its_control():
    demo = demos.calculator()
    with pytest.raises(ValueError, match="refill must be above threshold"):
        demo.set(unit="shares", threshold=2.0, refill="share")


def test_a_memory_without_decay_and_one_without_past_can_be_drawn():
    demo = demos.calculator()
    for decay in (0.0, 0.999):
        demo.set(decay=decay)
        demo.figure()
