"""Two and three processes learn what one learns from their batches together."""

import pytest
import torch

from tests.quantization import ranks
from vqlib.quantization import distributed, variants
from vqlib.quantization.reset import _hashes, _highest, _race

WORLDS = (2, 3)
pytestmark = pytest.mark.xdist_group("ranks of the quantizer")  # so that they start only once


def test_alone_each_is_the_identity_and_returns_the_very_tensor():
    tensor = torch.arange(3.0)
    assert not distributed.many()
    for function in (distributed.sum_over_ranks, distributed.from_first_rank):
        assert function(tensor) is tensor
        assert tensor.tolist() == [0, 1, 2]
    part = distributed.shard(3, tensor.device)
    assert part == (0, 3)
    assert distributed.picked(tensor, torch.tensor([2, 0]), part).tolist() == [2, 0]


def test_a_group_of_one_is_alone(tmp_path):
    address = f"file://{tmp_path / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    try:
        assert not distributed.many()
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def alone():
    return ranks.everything()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """{ranks: [what each of them found]}"""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(ranks.work, (str(folder),), nprocs=max(WORLDS))
    return {n: [torch.load(folder / f"{n}-{rank}.pt") for rank in range(n)] for n in WORLDS}


def assert_as_one(each: list[dict], one: dict) -> None:
    assert all(found["states"] == each[0]["states"] for found in each)
    for *parts, whole in zip(*(found["indices"] for found in [*each, one]), strict=True):
        assert torch.equal(torch.cat(parts), whole)
    for found in each:
        assert torch.equal(found["resets"], one["resets"])
        for name in ("codebook", "cluster_size"):
            torch.testing.assert_close(found[name], one[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ranks.RESETS)
def test_ranks_reset_the_codes_that_one_process_resets_with_the_same_tokens(
    name, world, together, alone
):
    one = alone["resetting"][name]
    assert len(one["resets"]) > 20
    assert_as_one([found["resetting"][name] for found in together[world]], one)


def test_a_rank_without_a_donor_was_among_them(alone):
    donors = alone["resetting"]["most_used"]["resets"][:, 2]
    assert (donors < 4 * min(parts[0] for parts in ranks.PARTS.values())).float().mean() > 0.5


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ranks.VARIANTS)
def test_a_variant_does_the_same_over_ranks_or_refuses(name, world, together, alone):
    each = [found["changed"][name] for found in together[world]]
    kind = variants.named(name)
    if kind.one_process:
        said = f"ValueError: {kind.__name__} learns from the batch of one process; got {world} "
        assert each == [f"{said}processes"] * world
    else:
        assert_as_one(each, alone["changed"][name])


@pytest.mark.parametrize("world", WORLDS)
def test_all_ranks_hear_of_a_batch_that_one_cannot_use(world, together):
    first, *others = [found["spoilt"] for found in together[world]]
    assert all(other == first for other in others)
    where = f"on rank {world - 1} of {world}"
    for when in (0, 3):
        assert first[f"nan {when}"].startswith(f"NonFiniteInput: z holds NaN or infinity {where};")
        assert first[f"empty {when}"].startswith(f"ValueError: z holds no tokens {where};")
        assert first[f"nan {when} after"][0] and first[f"empty {when} after"][0]  # nothing changed


@pytest.mark.parametrize("world", WORLDS)
def test_a_step_sends_one_message_and_an_evaluation_none(world, together):
    for found in together[world]:
        sent = found["sent"]
        assert sent["step"] == ["all_reduce"]
        assert len(sent["reset"]) <= 7
        assert len(sent["first"]) <= 5 + 11  # k-means: ten iterations and the last assignment
        assert sent["evaluation"] == []
        assert sent["states"] == together[world][0]["sent"]["states"]


def test_candidates_of_equal_vectors_have_equal_numbers_and_others_do_not():
    rows = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    rows[1] = -rows[0]
    rows[3:5] = torch.tensor([[0.0, 1.0, 0.0], [-0.0, 1.0, -0.0]])
    assert len(_hashes(rows).unique()) == 1999


def test_the_race_draws_what_multinomial_draws():
    weight = torch.rand(50, generator=torch.Generator().manual_seed(1))
    part, seed = distributed.Shard(0, 50), torch.Generator().manual_seed
    for n in (1, 7, 50):
        drawn = _highest(n, _race(weight, part, seed(2)), part)
        assert torch.equal(drawn, torch.multinomial(weight, n, generator=seed(2)))
