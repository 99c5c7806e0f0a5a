"""The search in groups finds what the plain search finds, whatever the inputs."""

import math

import pytest
import torch
from torch.nn import functional as F

from vqlib.quantization import groups
from vqlib.quantization.search import nearest

DIM, K, N = 16, 600, 800


def clustered(n: int, seed: int, centres: int = 12, spread: float = 0.03) -> torch.Tensor:
    """Unit vectors (n, DIM) in a few tight clusters."""
    middle = torch.randn(centres, DIM, generator=torch.Generator().manual_seed(9))
    draw = torch.Generator().manual_seed(seed)
    picked = middle[torch.randint(centres, (n,), generator=draw)]
    return F.normalize(picked + spread * torch.randn(n, DIM, generator=draw), dim=-1)


def random(n: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(groups, "LEAST", 1)
    monkeypatch.setattr(groups, "SIZE", 16)


@pytest.fixture
def always(monkeypatch):
    """Groups are used though they do not pay."""
    monkeypatch.setattr(groups, "WORTH", math.inf)


@pytest.fixture
def products(monkeypatch):
    """How many groups and inputs are multiplied: filled as `groups._visited` is called."""
    seen = []
    visited = groups._visited

    def counted(x, pairs, found):
        seen.append(int(pairs.sum()))
        return visited(x, pairs, found)

    monkeypatch.setattr(groups, "_visited", counted)
    return seen


def plain(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    return (x @ codebook.T).max(dim=-1).indices


def between() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs exactly as similar to two codes: codes are +-1 on axes, inputs on two axes each."""
    axes = torch.eye(DIM).repeat(20, 1)
    pairs = F.normalize(axes[: 2 * DIM] + axes[: 2 * DIM].roll(3, 0), dim=-1)
    return pairs, torch.cat([axes, -axes])


def ties() -> tuple[torch.Tensor, torch.Tensor]:
    """Each code stands twice, in an order that puts equal codes anywhere."""
    half = clustered(K // 2, 1)
    order = torch.randperm(K, generator=torch.Generator().manual_seed(2))
    return clustered(N, 3), torch.cat([half, half])[order]


def boundary() -> tuple[torch.Tensor, torch.Tensor]:
    """A circle: codes at even steps, inputs at the middle between neighbours."""
    turn = torch.arange(K) * (2 * math.pi / K)

    def circle(angle):
        return F.normalize(F.pad(torch.stack([angle.cos(), angle.sin()], -1), (0, DIM - 2)), dim=-1)

    return circle(turn + math.pi / K), circle(turn)


def one_far() -> tuple[torch.Tensor, torch.Tensor]:
    """A group of radius 180 degrees: all codes at one place but one opposite to them."""
    codebook = clustered(1, 0).expand(K, -1).clone()
    codebook[77] *= -1
    return torch.cat([codebook, random(50, 4)]), codebook


CASES = {
    "clusters": lambda: (clustered(N, 1), clustered(K, 2)),
    "random directions": lambda: (random(N, 1), random(K, 2)),
    "all codes equal": lambda: (random(N, 1), random(1, 2).expand(K, -1).contiguous()),
    "inputs between codes": between,
    "equal codes": ties,
    "neighbours on a circle": boundary,
    "one far code": one_far,
    "inputs are the codes": lambda: (clustered(K, 2), clustered(K, 2)),
    "inputs opposite to the codes": lambda: (-clustered(N, 1), clustered(K, 2)),
    "fewer inputs than groups": lambda: (clustered(3, 1), clustered(K, 2)),
    "one input": lambda: (clustered(1, 1), clustered(K, 2)),
    "one group": lambda: (random(N, 1), random(17, 2)),
    "all codes in a point and its opposite": lambda: (
        random(N, 1),
        torch.cat([clustered(300, 2, 1, 1e-7), -clustered(300, 2, 1, 1e-7)]),
    ),
    "steps of a rounding": lambda: (clustered(N, 1, 2, 1e-6), clustered(K, 2, 2, 1e-6)),
}


@pytest.mark.parametrize("held", [2**22, 1000])
@pytest.mark.parametrize("case", CASES)
def test_it_finds_what_the_plain_search_finds_ties_too(always, monkeypatch, case, held):
    monkeypatch.setattr(groups, "HELD", held)
    x, codebook = CASES[case]()
    found = groups.search(x, codebook)
    assert found is not None and found.dtype == torch.int64
    expected = plain(x, codebook)
    if case == "steps of a rounding":  # which of them is largest is a matter of the product's sums
        best = (x.double() @ codebook.double().T).max(dim=-1).values
        reached = (x.double() * codebook[found].double()).sum(dim=-1)
        assert (best - reached).max() < 5e-7
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("seed", range(20))
def test_on_clusters_of_any_width(always, seed):
    spread = 10 ** (-3 + seed % 7 / 2)
    x, codebook = clustered(N, seed, spread=spread), clustered(K, seed + 100, spread=spread)
    assert torch.equal(groups.search(x, codebook), plain(x, codebook))


def test_most_products_are_left_out_where_inputs_lie_in_clusters(products):
    assert groups.search(clustered(N, 1), clustered(K, 2)) is not None
    assert sum(products) < 0.3 * N * (K // 16)


def test_where_little_can_be_left_out_nothing_is_tried(products):
    assert groups.search(random(N, 1), random(K, 2)) is None
    assert not products


@pytest.mark.parametrize("bad", [1.001, 0.0, 1e-40, math.nan, math.inf])
@pytest.mark.parametrize("where", ["x", "codebook"])
def test_a_row_that_is_not_of_unit_length_is_left_to_the_plain_search(always, bad, where):
    x, codebook = clustered(N, 1), clustered(K, 2)
    given = {"x": x, "codebook": codebook}
    given[where][5] *= bad
    assert groups.search(x, codebook) is None
    assert torch.equal(nearest(x, codebook)[:5], plain(x, codebook)[:5])


def test_few_inputs_or_few_codes_are_left_to_the_plain_search(monkeypatch):
    monkeypatch.setattr(groups, "LEAST", K)
    x, codebook = clustered(K, 1), clustered(K, 2)
    assert groups.search(x, codebook) is not None
    assert groups.search(x[1:], codebook) is None and groups.search(x, codebook[1:]) is None


def test_nearest_takes_it_where_it_pays_and_not_with_a_bias(products):
    x, codebook = clustered(N, 1), clustered(K, 2)
    assert torch.equal(nearest(x, codebook), plain(x, codebook)) and products
    products.clear()
    bias = torch.linspace(0, 1, K)
    assert torch.equal(nearest(x, codebook, bias), (x @ codebook.T + bias).max(dim=-1).indices)
    assert not products


def test_a_radius_reaches_the_furthest_code_and_groups_are_the_codebook():
    codebook = clustered(K, 2, spread=0.3)
    found = groups.grouped(codebook)
    assert torch.equal(torch.cat(found.places).unique(), torch.arange(K))
    assert sum(len(places.unique()) for places in found.places) == K
    for centre, radius, codes, places in zip(*found, strict=True):
        assert torch.equal(codes, codebook[places]) and (places.diff() >= 0).all()
        assert (codes.double() @ centre.double()).clamp(-1, 1).acos().max() <= radius
