"""vqlib.usage: figures of use, against closed forms, definitions and simulation."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vqlib.quantization import usage
from vqlib.quantization.ranges import SettingsError

quickly = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
COUNTS = st.lists(st.integers(0, 1000), min_size=1, max_size=40).filter(any)
METRICS = (
    usage.used_codes,
    usage.utilization,
    usage.entropy,
    usage.perplexity,
    usage.perplexity_share,
    usage.top_code_ratio,
    usage.gini,
)


def directions(n, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, dim, generator=generator), dim=-1)


# --- counts ---


@pytest.mark.parametrize("codes", [1, 2, 7, 512])
def test_perfectly_even_use(codes):
    even = torch.full((codes,), 3)
    assert usage.used_codes(even) == codes
    assert usage.utilization(even) == 1
    assert usage.entropy(even) == pytest.approx(math.log(codes))
    assert usage.entropy(even, normalized=True) == pytest.approx(1)
    assert usage.perplexity(even) == pytest.approx(codes)
    assert usage.perplexity_share(even) == pytest.approx(1)
    assert usage.top_code_ratio(even) == pytest.approx(1)
    assert usage.gini(even) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("codes", [2, 7, 512])
def test_all_use_on_one_code(codes):
    one = torch.zeros(codes)
    one[codes // 2] = 3807
    assert usage.used_codes(one) == 1
    assert usage.utilization(one) == 1 / codes
    assert usage.entropy(one) == usage.entropy(one, normalized=True) == 0
    assert usage.perplexity(one) == 1
    assert usage.top_code_ratio(one) == pytest.approx(codes)
    assert usage.gini(one) == pytest.approx((codes - 1) / codes)


def test_a_worked_example():
    counts = [4, 2, 0, 2]
    assert usage.utilization(counts) == 0.75
    assert usage.entropy(counts) == pytest.approx(1.5 * math.log(2))
    assert usage.entropy(counts, normalized=True) == pytest.approx(0.75)
    assert usage.perplexity(counts) == pytest.approx(2**1.5)
    assert usage.top_code_ratio(counts) == pytest.approx(2)


@quickly
@given(COUNTS)
def test_gini_is_the_mean_difference_over_twice_the_mean(counts):
    differences = sum(abs(a - b) for a, b in itertools.product(counts, counts))
    expected = differences / (2 * len(counts) * sum(counts))
    assert usage.gini(counts) == pytest.approx(expected, abs=1e-9)


@quickly
@given(COUNTS, st.randoms())
def test_figures_do_not_depend_on_the_order_of_codes(counts, random):
    shuffled = random.sample(counts, len(counts))
    for metric in METRICS:
        assert metric(shuffled) == pytest.approx(metric(counts), abs=1e-9)


@quickly
@given(COUNTS, st.integers(2, 9))
def test_figures_depend_on_shares_not_on_the_number_of_tokens(counts, times):
    for metric in METRICS:
        scaled = metric([times * count for count in counts])
        assert scaled == pytest.approx(metric(counts), abs=1e-9)


@quickly
@given(COUNTS)
def test_bounds(counts):
    codes, slack = len(counts), 1e-9
    assert 1 / codes <= usage.utilization(counts) <= 1
    assert 1 - slack <= usage.perplexity(counts) <= usage.used_codes(counts) + slack
    assert usage.perplexity_share(counts) == pytest.approx(usage.perplexity(counts) / codes)
    assert 0 <= usage.entropy(counts, normalized=True) <= 1 + slack
    assert 1 - slack <= usage.top_code_ratio(counts) <= codes + slack
    assert -slack <= usage.gini(counts) <= 1 - 1 / codes + slack


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_counts_may_be_lists_arrays_or_tensors(kind):
    assert usage.summarize(kind([1, 0, 3]))["used_codes"] == 2


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[1, 2]], r"shape \(K,\) with K >= 1, got \(1, 2\)"),
        ([], r"shape \(K,\) with K >= 1, got \(0,\)"),
        ([1.0, math.nan], "finite"),
        ([1, -2], "must not be negative, got -2"),
    ],
)
def test_counts_that_are_none_are_refused(metric, counts, message):
    with pytest.raises(ValueError, match=message):
        metric(torch.tensor(counts))


def test_shares_of_nothing_are_refused():
    assert usage.utilization([0, 0]) == 0
    for metric in (usage.entropy, usage.perplexity, usage.top_code_ratio, usage.gini):
        with pytest.raises(ValueError, match="no tokens were counted"):
            metric([0, 0])


def test_dead_codes_lie_below_the_threshold_and_not_at_it():
    assert usage.dead_codes([0.0, 0.99, 1.0, 5.0], 1.0).tolist() == [0, 1]
    assert usage.dead_codes([0.0, 0.99, 1.0, 5.0], 0.0).tolist() == []


# --- the ceiling of a window ---


@pytest.mark.parametrize(
    ("codes", "tokens", "expected"), [(512, 2048, 0.982), (1024, 1600, 0.791), (8192, 1600, 0.177)]
)
def test_uniform_utilization_of_published_windows(codes, tokens, expected):
    assert usage.uniform_utilization(codes, tokens) == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize(("codes", "tokens"), [(8, 5), (64, 64), (100, 350)])
def test_uniform_utilization_is_what_simulated_uniform_use_shows(codes, tokens):
    draws = np.random.default_rng(0).integers(codes, size=(2000, tokens))
    shares = [len(np.unique(row)) / codes for row in draws]
    error = np.std(shares) / math.sqrt(len(shares))
    assert usage.uniform_utilization(codes, tokens) == pytest.approx(np.mean(shares), abs=4 * error)


def test_uniform_utilization_at_its_ends():
    assert usage.uniform_utilization(1, 0) == usage.uniform_utilization(9, 0) == 0
    assert usage.uniform_utilization(1, 1) == usage.uniform_utilization(2, 2000) == 1
    assert usage.uniform_utilization(2**24, 1) == pytest.approx(2**-24)
    for field, wrong in (("codebook_size", (0, 5)), ("tokens", (5, -1))):
        with pytest.raises(SettingsError) as caught:
            usage.uniform_utilization(*wrong)
        assert caught.value.field == field


# --- vectors ---


@quickly
@given(st.integers(1, 25), st.integers(0, 99), st.integers(1, 80))
def test_near_duplicates_against_every_pair(codes, seed, chunk):
    book = directions(codes, 3, seed)
    book[codes // 3 : codes // 2] = book[0] * 2.5  # length does not matter
    unit = F.normalize(book.double(), dim=-1)
    expected = sum(any(float(unit[i] @ unit[j]) > 0.98 for j in range(i)) for i in range(codes))
    assert usage.near_duplicates(book, cosine=0.98, chunk=chunk) == expected


@quickly
@given(st.integers(2, 20), st.integers(1, 6), st.integers(0, 99), st.booleans())
def test_pairwise_similarity_is_the_average_over_explicit_pairs(n, dim, seed, centered):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=generator).double() + 0.5
    y = F.normalize(x - x.mean(dim=0) if centered else x, dim=-1)
    pairs = [float(y[i] @ y[j]) for i, j in itertools.combinations(range(n), 2)]
    found = usage.pairwise_similarity(x.float(), centered=centered)
    assert found == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)


def test_a_common_offset_hides_differences_that_centering_shows():
    x = directions(200, 8) + 20
    assert usage.pairwise_similarity(x) > 0.99
    assert abs(usage.pairwise_similarity(x, centered=True)) < 0.05


def test_vectors_that_cannot_be_told_apart_are_wholly_similar():
    same = directions(1, 8).expand(50, 8)
    for collapsed in (same, torch.zeros(50, 8)):
        assert usage.pairwise_similarity(collapsed) == pytest.approx(1, abs=1e-5)
        assert usage.feature_std(collapsed) == pytest.approx(0, abs=1e-6)
        assert usage.effective_rank(collapsed) == pytest.approx(1, abs=1e-3)


def test_a_zero_vector_has_no_direction_and_does_not_count():
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    assert usage.pairwise_similarity(x) == pytest.approx(0, abs=1e-6)


def test_feature_std_averages_over_features():
    x = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    assert usage.feature_std(x) == pytest.approx((math.sqrt(2) + 0) / 2)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_effective_rank_counts_equal_directions(rank):
    axes = torch.eye(6)[:rank]
    assert usage.effective_rank(torch.cat([axes, -axes])) == pytest.approx(rank, rel=1e-3)


def test_effective_rank_lies_below_the_rank_where_directions_differ_in_weight():
    singular = torch.tensor([3.0, 1.0])
    axes = torch.diag(singular)
    p = singular / singular.sum()
    expected = math.exp(-float((p * p.log()).sum()))
    assert usage.effective_rank(torch.cat([axes, -axes])) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "measure", [usage.pairwise_similarity, usage.feature_std, usage.effective_rank]
)
def test_any_leading_shape_counts_as_so_many_vectors(measure):
    x = directions(24, 5)
    assert measure(x.reshape(2, 3, 4, 5)) == measure(x)
    assert measure(x.bfloat16()) == pytest.approx(measure(x), abs=0.05)
    with pytest.raises(ValueError, match=r"\(\.\.\., D\), got \(24,\)"):
        measure(x[:, 0])
    with pytest.raises(ValueError, match="at least 2 vectors, got 1"):
        measure(x[:1])


# --- counting over batches ---


def test_a_counter_adds_up_its_batches():
    batches = [torch.randint(16, shape) for shape in ((4, 7), (3,), (2, 2, 2), (0,))]
    counter = usage.UsageCounter(16)
    for batch in batches:
        counter.update(batch)
    flat = torch.cat([b.flatten() for b in batches])
    assert counter.counts.tolist() == [int((flat == code).sum()) for code in range(16)]
    assert counter.tokens == 39
    assert counter.compute() == usage.summarize(counter.counts)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 4], r"\[0, 4\), got 0 to 4"),
        ([-1, 2], r"\[0, 4\), got -1 to 2"),
        ([0.5], "integers, got torch.float32"),
        ([True], "integers, got torch.bool"),
    ],
)
def test_indices_that_are_no_codes_are_refused_and_not_counted(indices, message):
    counter = usage.UsageCounter(4)
    with pytest.raises(ValueError, match=message):
        counter.update(torch.tensor(indices))
    assert counter.tokens == 0
    with pytest.raises(ValueError, match="at least 1, got 0"):
        usage.UsageCounter(0)
