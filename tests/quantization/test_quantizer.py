"""vqlib.quantizer against a naive reference, loop by loop; and all that must not change."""

import copy
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from tests.training.tiny_training import copies, same_bits
from vqlib import DeadCodeReset, NormEMAQuantizer
from vqlib.quantization import quantizer, search
from vqlib.quantization.ranges import SettingsError

CODES, DIM = 16, 4


def make(**settings) -> NormEMAQuantizer:
    return NormEMAQuantizer(**({"codebook_size": CODES, "dim": DIM} | settings))


def inputs(step=0, tokens=48, dim=DIM):
    """A batch whose vectors crowd around a direction that turns from step to step."""
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randn(tokens, dim, generator=generator) + torch.eye(dim)[step % dim]


def everything(q) -> dict:
    return copies(q.state_dict())


# --- the step, written out naively in double precision ---


def unit(vector):
    length = sum(float(v) ** 2 for v in vector) ** 0.5
    return [float(v) / length for v in vector]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def assign(x, codebook):
    return [max(range(len(codebook)), key=lambda k: dot(v, codebook[k])) for v in x]


def mean_direction(x):
    return unit([sum(column) for column in zip(*x, strict=True)])


def naive_kmeans(x, draw, iterations=10):
    means = [x[i] for i in draw]
    for _ in range(iterations):
        chosen = assign(x, means)
        for k in range(len(means)):
            members = [v for v, c in zip(x, chosen, strict=True) if c == k]
            if members:
                means[k] = mean_direction(members)
    chosen = assign(x, means)
    return means, [float(chosen.count(k)) for k in range(len(means))]


def naive_step(z, codebook, cluster_size, decay, beta):
    """(codebook, cluster_size, indices, quantized, loss) of one training step."""
    x = [unit(v) for v in z.tolist()]
    indices = assign(x, codebook)
    quantized = [codebook[k] for k in indices]
    new_book, new_size = [], []
    for k, code in enumerate(codebook):
        members = [v for v, c in zip(x, indices, strict=True) if c == k]
        new_size.append(decay * cluster_size[k] + (1 - decay) * len(members))
        mean = mean_direction(members) if members else code
        moved = [decay * a + (1 - decay) * b for a, b in zip(code, mean, strict=True)]
        new_book.append(unit(moved))
    squares = [
        (a - b) ** 2 for q, v in zip(quantized, x, strict=True) for a, b in zip(q, v, strict=True)
    ]
    return new_book, new_size, indices, quantized, beta * sum(squares) / len(squares)


def assert_near(tensor, expected):
    torch.testing.assert_close(tensor.double(), torch.tensor(expected).double(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("kmeans_init", [True, False])
def test_several_steps_follow_the_naive_reference(decay, kmeans_init):
    q = make(decay=decay, beta=0.3, kmeans_init=kmeans_init, seed=5)
    codebook = q.codebook.tolist()
    for step in range(5):
        z = inputs(step)
        if step == 0:
            x = [unit(v) for v in z.tolist()]
            if kmeans_init:
                generator = torch.Generator()
                generator.set_state(q.generator.get_state())
                draw = torch.randperm(len(z), generator=generator)[:CODES].tolist()
                codebook, cluster_size = naive_kmeans(x, draw)
            else:
                chosen = assign(x, codebook)
                cluster_size = [float(chosen.count(k)) for k in range(CODES)]
        codebook, cluster_size, indices, quantized, loss = naive_step(
            z, codebook, cluster_size, decay, 0.3
        )
        out = q(z)
        assert out.indices.tolist() == indices
        assert_near(out.quantized, quantized)  # looked up before the codes moved
        assert_near(out.loss, loss)
        assert_near(q.codebook, codebook)
        assert_near(q.cluster_size, cluster_size)


def test_decay_1_moves_no_code_and_decay_0_moves_each_used_code_to_its_mean():
    still, jumps = make(decay=1.0, kmeans_init=False), make(decay=0.0, kmeans_init=False)
    before, z = still.codebook.clone(), inputs()
    still(z)
    torch.testing.assert_close(still.codebook, before)
    chosen = jumps(z).indices
    x = F.normalize(z, dim=-1)
    for code in chosen.unique():
        mean = F.normalize(x[chosen == code].sum(dim=0), dim=0)
        torch.testing.assert_close(jumps.codebook[code], mean)


def test_unused_codes_do_not_change_by_a_bit():
    q = make(kmeans_init=False)
    for step in range(8):
        before = q.codebook.clone()
        used = torch.zeros(CODES, dtype=torch.bool)
        used[q(inputs(step, tokens=5)).indices] = True
        assert torch.equal(q.codebook[~used], before[~used])
        assert not (q.codebook[used] == before[used]).all(dim=1).any()


def test_one_hit_moves_a_code_as_far_as_a_thousand():
    one, many = make(codebook_size=1), make(codebook_size=1)
    for q in (one, many):
        q(torch.tensor([[1.0, 0, 0, 0]]))
    one(torch.tensor([[0.0, 1, 0, 0]]))
    many(torch.tensor([[0.0, 1, 0, 0]]).expand(1000, 4))
    torch.testing.assert_close(one.codebook, many.codebook)


def test_cluster_size_starts_at_the_counts_of_the_first_batch():
    q = make(decay=0.9)
    z = inputs(tokens=200)
    bins = torch.bincount(q(z).indices, minlength=CODES).float()
    torch.testing.assert_close(q.cluster_size, bins)  # k-means' counts, then their average
    assert q.cluster_size.sum() == pytest.approx(200)


def test_a_code_without_hits_decays_and_never_reaches_0():
    q = make(decay=0.5, kmeans_init=False)
    q(inputs(tokens=100))
    start = q.cluster_size.clone()
    z = q.codebook[:1].clone()
    for _ in range(10):
        q(z)
    idle = torch.arange(CODES) != int(q.eval()(z).indices)
    torch.testing.assert_close(q.cluster_size[idle], start[idle] * 0.5**10)
    assert (q.cluster_size[idle & (start > 0)] > 0).all()


# --- k-means ---


def test_an_empty_cluster_keeps_its_mean():
    x = F.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1], [1.0, 0.0]]), dim=-1)
    x = torch.cat([x, x[:1]])  # two of four starting points are one vector
    for seed in range(6):
        means, bins = quantizer.spherical_kmeans(x, 4, torch.Generator().manual_seed(seed))
        assert bins.sum() == 4 and (bins == 0).sum() >= 1
        torch.testing.assert_close(means.norm(dim=-1), torch.ones(4))
        kept = means[bins == 0]
        assert all((vector == x).all(dim=1).any() for vector in kept)


def test_kmeans_finds_clusters_that_are_plain_to_see():
    centres = torch.eye(DIM)
    generator = torch.Generator().manual_seed(0)
    x = (centres.repeat(30, 1) + 0.05 * torch.randn(120, DIM, generator=generator)).split(1)
    x = F.normalize(torch.cat(x), dim=-1)
    best = max(
        (quantizer.spherical_kmeans(x, DIM, torch.Generator().manual_seed(s)) for s in range(20)),
        key=lambda found: float(found[1].min()),
    )
    assert best[1].tolist() == [30] * DIM
    assert (best[0] @ centres.T).max(dim=0).values.min() > 0.99


def test_fewer_tokens_than_codes_warns_and_still_works():
    q = make()
    with pytest.warns(UserWarning, match="the first batch has 5 tokens for 16 codes"):
        q(inputs(tokens=5))
    torch.testing.assert_close(q.codebook.norm(dim=-1), torch.ones(CODES))
    assert q.cluster_size.sum() == pytest.approx(5)


def test_kmeans_runs_once():
    q = make(decay=1.0)
    assert not q.initialized
    q(inputs())
    assert q.initialized
    before = everything(q)
    q(inputs(1))
    torch.testing.assert_close(q.codebook, before["codebook"])
    assert torch.equal(q.generator.get_state(), before["_extra_state"])


# --- what comes out ---


def test_loss_and_straight_through_gradient():
    q = make(beta=0.25).eval()
    z = inputs().requires_grad_()
    out = q(z)
    x = F.normalize(z, dim=-1)
    code = q.codebook[out.indices]
    torch.testing.assert_close(out.loss, 0.25 * (code - x).square().mean())
    weight = torch.randn(out.quantized.shape, generator=torch.Generator().manual_seed(1))
    (out.quantized * weight).sum().backward(retain_graph=True)
    through = z.grad.clone()
    (expected,) = torch.autograd.grad((x * weight).sum(), z, retain_graph=True)
    torch.testing.assert_close(through, expected)  # as if quantizing were the identity
    z.grad = None
    out.loss.backward()
    (expected,) = torch.autograd.grad(0.25 * (code.detach() - x).square().mean(), z)
    torch.testing.assert_close(z.grad, expected)


def test_beta_0_pulls_at_nothing_and_the_codebook_never_has_a_gradient():
    q = make(beta=0.0)
    z = inputs().requires_grad_()
    out = q(z)
    (out.quantized.sum() * 0 + out.loss).backward()
    assert out.loss == 0 and not z.grad.any()
    assert not list(q.parameters()) and q.codebook.grad is None


@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (1, 2, 3, 4)])
def test_any_leading_shape(shape):
    q = make(kmeans_init=False).eval()
    z = torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(3))
    out, flat = q(z), q(z.reshape(-1, DIM))
    assert out.indices.shape == shape and out.indices.dtype == torch.int64
    assert out.quantized.shape == z.shape and out.loss.shape == ()
    assert torch.equal(out.indices.reshape(-1), flat.indices)
    assert torch.equal(out.quantized.reshape(-1, DIM), flat.quantized)


def test_length_of_the_input_does_not_matter():
    q = make().eval()
    z = inputs()
    assert torch.equal(q(z).indices, q(z * torch.linspace(0.1, 50, 48)[:, None]).indices)
    torch.testing.assert_close(q(z).quantized.norm(dim=-1), torch.ones(48))


def test_an_input_without_contiguous_memory():
    q = make(kmeans_init=False).eval()
    z = torch.randn(3, DIM, 5, generator=torch.Generator().manual_seed(3)).movedim(1, -1)
    assert torch.equal(q(z).indices, q(z.contiguous()).indices)


def test_decode_gives_the_codes():
    q = make().eval()
    out = q(inputs().reshape(6, 8, DIM))
    torch.testing.assert_close(q.decode(out.indices), out.quantized)


# --- precision ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_come_back_as_they_went_in(dtype):
    q, same = make(), make()
    z = inputs().to(dtype)
    out, expected = q(z), same(z.float())
    assert out.quantized.dtype == dtype and out.loss.dtype == torch.float32
    assert torch.equal(out.indices, expected.indices)
    assert same_bits(everything(q), everything(same))
    assert q.codebook.dtype == q.cluster_size.dtype == torch.float32


def test_under_autocast_the_codebook_learns_in_float32():
    q, same = make(), make()
    for step in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = q(inputs(step))
        expected = same(inputs(step))
        assert torch.equal(out.indices, expected.indices) and torch.equal(out.loss, expected.loss)
    assert same_bits(everything(q), everything(same))


def test_a_codebook_cast_to_half_precision_is_refused():
    with pytest.raises(TypeError, match=r"codebook is torch.bfloat16.*float32.*\.float\(\)"):
        make().bfloat16()(inputs().bfloat16())


# --- what must not change ---


@pytest.mark.parametrize("trained", [False, True])
def test_evaluation_changes_nothing(trained):
    q = make(reset=DeadCodeReset(5.0))
    if trained:
        q(inputs())
    before, last = everything(q), q.last_reset
    first = q.eval()(inputs(1))
    again = q(inputs(1))
    assert same_bits(everything(q), before) and q.last_reset is last
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    q = make(reset=DeadCodeReset(5.0))
    for step in range(3):
        q(inputs(step))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("trained", [False, True])
def test_a_training_batch_with_nan_is_refused_before_anything_changes(poison, trained):
    q = make(reset=DeadCodeReset(5.0))
    if trained:
        q(inputs())
    before = everything(q)
    z = inputs(1)
    z[7, 2] = poison
    with pytest.raises(ValueError, match="NaN or infinity"):
        q(z)
    assert same_bits(everything(q), before)


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.zeros(3, DIM, dtype=torch.int64), "z must be floating point, got torch.int64"),
        (torch.zeros(3, DIM + 1), r"shape \(\.\.\., 4\), got \(3, 5\)"),
        (torch.tensor(1.0), r"shape \(\.\.\., 4\), got \(\)"),
        (torch.zeros(0, DIM), r"no tokens: shape \(0, 4\)"),
    ],
)
def test_wrong_inputs_are_refused(z, message):
    with pytest.raises(ValueError, match=message):
        make()(z)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"codebook_size": 0}, SettingsError, "of at least 1, got 0"),
        ({"dim": 0}, SettingsError, "of at least 1, got 0"),
        ({"decay": 1.5}, SettingsError, "from 0 to 1, got 1.5"),
        ({"decay": float("nan")}, SettingsError, "got nan"),
        ({"beta": -1.0}, SettingsError, "of at least 0, got -1.0"),
        ({"beta": float("inf")}, SettingsError, "got inf"),
        ({"reset": 1.0}, TypeError, "reset must be a DeadCodeReset or None, got 1.0"),
    ],
)
def test_wrong_settings_are_named(wrong, error, message):
    with pytest.raises(error, match=message) as caught:
        make(**wrong)
    if error is SettingsError:
        assert [caught.value.field] == list(wrong)


# --- reset inside the step ---


def test_a_reset_comes_last_and_survives_the_step():
    q, plain = make(seed=4), make(seed=4)
    q(inputs()), plain(inputs())
    q.reset = DeadCodeReset(2.5)
    z = inputs(1)
    generator = torch.Generator()
    generator.set_state(q.generator.get_state())
    out = q(z)
    plain(z)
    codebook, cluster_size = plain.codebook.clone(), plain.cluster_size.clone()
    expected = q.reset.apply(
        codebook, cluster_size, quantizer.on_sphere(z), out.indices, len(z), generator
    )
    assert len(expected.codes) > 0
    assert torch.equal(q.last_reset.codes, expected.codes)
    assert torch.equal(q.last_reset.donors, expected.donors)
    assert torch.equal(q.codebook, codebook) and torch.equal(q.cluster_size, cluster_size)
    assert torch.equal(q.codebook[expected.codes], quantizer.on_sphere(z)[expected.donors])
    assert q.cluster_size[expected.codes].tolist() == [3.5] * len(expected.codes)


def test_resets_act_on_each_nth_step_only():
    q = make(reset=DeadCodeReset(10.0, every=3))
    fired = []
    for step in range(9):
        q(inputs(step))
        fired.append(q.last_reset is not None)
    assert fired == [False, False, True] * 3


def test_threshold_0_and_no_reset_never_fire(caplog):
    off, none = make(reset=DeadCodeReset(0.0)), make()
    with caplog.at_level(logging.INFO, logger="vqlib"):
        for step in range(20):
            off(inputs(step, tokens=20)), none(inputs(step, tokens=20))
            assert off.last_reset is None
    assert not caplog.records and same_bits(everything(off), everything(none))


def test_relative_thresholds_see_the_tokens_of_the_step():
    q = make(reset=DeadCodeReset(0.5, relative=True))
    for step in range(4):
        q(inputs(step, tokens=64))
        if q.last_reset is not None:
            assert q.last_reset.threshold == 0.5 * 64 / CODES
            break
    else:
        pytest.fail("no code died in four steps")


# --- state ---


def through_state_dict(q, path):
    other = make(reset=q.reset, seed=999)
    other.load_state_dict(copies(q.state_dict()))
    return other


def through_safetensors(q, path):
    save_file(q.state_dict(), path / "q.safetensors")
    other = make(reset=q.reset, seed=999)
    other.load_state_dict(load_file(path / "q.safetensors"))
    return other


def through_torch_save(q, path):
    torch.save(q.state_dict(), path / "q.pt")
    other = make(reset=q.reset, seed=999)
    other.load_state_dict(torch.load(path / "q.pt", weights_only=True))
    return other


def through_deepcopy(q, path):
    return copy.deepcopy(q)


@pytest.mark.parametrize(
    "travel", [through_state_dict, through_safetensors, through_torch_save, through_deepcopy]
)
@pytest.mark.parametrize("steps", [0, 3])
def test_a_copy_goes_on_bit_for_bit(travel, steps, tmp_path):
    q = make(reset=DeadCodeReset(3.0), seed=1)
    for step in range(steps):
        q(inputs(step))
    other = travel(q, tmp_path)
    assert same_bits(everything(other), everything(q)) and other.initialized == (steps > 0)
    resets = 0
    for step in range(steps, steps + 4):
        out, expected = q(inputs(step)), other(inputs(step))
        assert all(torch.equal(a, b) for a, b in zip(out, expected, strict=True))
        assert same_bits(everything(other), everything(q))
        resets += q.last_reset is not None
    assert resets, "the test means to cover the generator's draws"


def test_loading_a_fresh_state_brings_kmeans_back():
    fresh, used = make(seed=1), make(seed=1)
    start = copies(fresh.state_dict())
    used(inputs(1))
    used.load_state_dict(start)
    assert not used.initialized and used.last_reset is None
    fresh(inputs()), used(inputs())
    assert same_bits(everything(fresh), everything(used))


def test_the_seed_decides_the_start_and_the_draws():
    one, two, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(one.codebook, two.codebook)
    assert not torch.equal(one.codebook, other.codebook)
    one(inputs()), two(inputs()), other(inputs())
    assert torch.equal(one.codebook, two.codebook)
    assert not torch.equal(one.codebook, other.codebook)


# --- memory ---


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


def test_no_matrix_of_tokens_by_codes_is_ever_made(monkeypatch):
    monkeypatch.setattr(search, "TILE", 1024)
    monkeypatch.setattr(search, "ROWS", 8)
    q = make(codebook_size=256, reset=DeadCodeReset(50.0))
    z = inputs(tokens=2000).requires_grad_()
    with LargestTensor() as largest:
        out = q(z)
        (out.quantized.sum() + out.loss).backward()
    assert q.last_reset is not None
    assert largest.elements == z.numel()  # 8,000; tokens by codes would be 512,000


def test_backward_keeps_no_more_than_a_few_copies_of_the_input():
    kept = []
    q = make(codebook_size=512)
    z = inputs(tokens=600).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        q(z)
    assert max(kept) <= z.numel() and sum(kept) <= 6 * z.numel()


# --- compiled ---


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(6, DIM)
        self.quantizer = make(reset=DeadCodeReset(3.0))
        self.decoder = torch.nn.Linear(DIM, 6)

    def forward(self, x):
        quantized, indices, loss = self.quantizer(self.encoder(x))
        return self.decoder(quantized), indices, loss


def test_a_compiled_model_gives_the_same_numbers():
    torch.manual_seed(0)
    eager = Small()
    model = copy.deepcopy(eager)
    compiled = torch.compile(model, backend="aot_eager")
    resets = 0
    for step in range(4):
        x = inputs(step, dim=6)
        for network in (eager, compiled):
            network.zero_grad()
            out, _, loss = network(x)
            (F.mse_loss(out, x) + loss).backward()
        torch.testing.assert_close(model.quantizer.codebook, eager.quantizer.codebook)
        torch.testing.assert_close(model.quantizer.cluster_size, eager.quantizer.cluster_size)
        torch.testing.assert_close(model.encoder.weight.grad, eager.encoder.weight.grad)
        resets += eager.quantizer.last_reset is not None
    assert resets
    before = copies(model.state_dict())
    eager.eval(), model.eval()
    x = inputs(9, dim=6)
    for ours, expected in zip(compiled(x), eager(x), strict=True):
        torch.testing.assert_close(ours, expected)
    assert same_bits(copies(model.state_dict()), before)


# --- several processes ---


def halves(rank, folder, reset):
    """One of two processes: five steps on its half of each batch; writes what it ended with."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/{reset is None}", rank=rank, world_size=2
    )
    ended = {}
    for kmeans_init in (False, True):
        q = make(reset=reset, kmeans_init=kmeans_init, seed=0 if reset is None else rank)
        fired = 0
        for step in range(5):
            q(inputs(step).chunk(2)[rank])
            fired += q.last_reset is not None
        ended |= {f"{kmeans_init}/{n}": t for n, t in q.state_dict().items() if n != "_extra_state"}
        ended[f"{kmeans_init}/fired"] = torch.tensor(fired)
    save_file(ended, f"{folder}/{reset is None}-{rank}.safetensors")
    torch.distributed.destroy_process_group()


def both_cases(rank, folder):
    halves(rank, folder, None)
    halves(rank, folder, DeadCodeReset(3.0, donors="batch"))


on_one_worker = pytest.mark.xdist_group("ranks")  # so that the processes start only once


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """{(with a reset, rank): what it ended with}"""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(both_cases, (str(folder),), nprocs=2)
    return {
        (reset, rank): load_file(folder / f"{not reset}-{rank}.safetensors")
        for reset in (False, True)
        for rank in range(2)
    }


@on_one_worker
def test_two_ranks_agree_to_the_bit(two_processes):
    assert same_bits(two_processes[False, 0], two_processes[False, 1])


@on_one_worker
def test_two_ranks_agree_even_where_a_reset_draws_from_other_seeds_and_data(two_processes):
    first, second = two_processes[True, 0], two_processes[True, 1]
    assert first["False/fired"] > 0 and first["True/fired"] > 0
    assert same_bits(first, second)


@on_one_worker
def test_two_ranks_with_half_a_batch_each_learn_what_one_learns_from_it_all(two_processes):
    q = make(kmeans_init=False)
    for step in range(5):
        q(inputs(step))
    torch.testing.assert_close(two_processes[False, 0]["False/codebook"], q.codebook)
    torch.testing.assert_close(two_processes[False, 0]["False/cluster_size"], q.cluster_size)


@on_one_worker
def test_two_ranks_start_at_the_kmeans_of_the_whole_batch(two_processes):
    x = [unit(v) for v in inputs().tolist()]  # the first rank's half comes first
    draw = torch.randperm(len(x), generator=make(seed=0).generator)[:CODES].tolist()
    codebook, cluster_size = naive_kmeans(x, draw)
    for step in range(5):
        codebook, cluster_size, *_ = naive_step(inputs(step), codebook, cluster_size, 0.9, 0.25)
    assert_near(two_processes[False, 0]["True/codebook"], codebook)
    assert_near(two_processes[False, 0]["True/cluster_size"], cluster_size)


# --- CUDA ---


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize("donors", ["most_used", "top", "batch", "usage"])
def test_cuda_follows_the_cpu_and_its_draws(donors):
    cpu = make(reset=DeadCodeReset(2.5, donors=donors))
    cuda = make(reset=DeadCodeReset(2.5, donors=donors)).cuda()
    for step in range(3):
        expected, out = cpu(inputs(step)), cuda(inputs(step).cuda())
        torch.testing.assert_close(out.quantized.cpu(), expected.quantized)
        torch.testing.assert_close(cuda.codebook.cpu(), cpu.codebook)
    assert torch.equal(cuda.generator.get_state(), cpu.generator.get_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_a_state_moves_from_cuda_to_the_cpu():
    cuda, cpu = make(reset=DeadCodeReset(2.5)).cuda(), make(reset=DeadCodeReset(2.5), seed=9)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        cuda(inputs().cuda())
    cpu.load_state_dict(cuda.state_dict())
    torch.testing.assert_close(cpu(inputs(1)).quantized, cuda(inputs(1).cuda()).quantized.cpu())


@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1e30])
def test_no_length_is_too_short_or_too_long_for_a_direction(scale):
    z = torch.randn(64, 8)
    torch.testing.assert_close(quantizer.on_sphere(z * scale), F.normalize(z, dim=-1))


def test_inputs_that_cancel_leave_their_code_where_it_was():
    q = NormEMAQuantizer(1, 2, decay=0.0, kmeans_init=False).train()
    before = q.codebook.clone()
    q(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert torch.equal(q.codebook, before)


def test_a_codebook_that_came_by_buffers_is_not_initialised_again():
    trained = NormEMAQuantizer(8, 4).train()
    trained(torch.randn(64, 4))
    copy = NormEMAQuantizer(8, 4, decay=1.0).train()  # decay 1: learning moves nothing
    for mine, theirs in zip(copy.buffers(), trained.buffers(), strict=True):
        mine.copy_(theirs)  # as averaged models and data-parallel wrappers do
    copy(torch.randn(64, 4))
    torch.testing.assert_close(copy.codebook, trained.codebook)
    assert int(copy.steps) == 2


def test_a_vector_without_a_direction_becomes_the_first_axis():
    z = torch.zeros(64, 8)
    q = NormEMAQuantizer(4, 8, reset=DeadCodeReset(threshold=1.0)).train()
    for _ in range(3):
        out = q(z)
    assert torch.allclose(out.quantized, torch.eye(8)[0].expand(64, 8))
    torch.testing.assert_close(q.codebook.norm(dim=-1), torch.ones(4))


def test_a_vector_without_a_direction_has_no_gradient_and_leaves_others_theirs():
    z = torch.randn(64, 8)
    z[3] = 0
    z.requires_grad_()
    NormEMAQuantizer(4, 8).train()(z).quantized.sum().backward()
    assert z.grad is not None and not z.grad[3].any() and z.grad[:3].all()
