"""A watch sees what happens, and changes nothing."""

import copy
import io
import threading
import warnings
from functools import partial

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

import vqlib
from tests.watching.watched_models import Autoencoder, Witness, batch, train
from vqlib.quantization import usage
from vqlib.quantization.ledger import ResetLedger
from vqlib.training.history import COLUMNS
from vqlib.watching.track import KEEP, OutOfRange

K = 32


def ours(**changes) -> Autoencoder:
    torch.manual_seed(0)
    reset = vqlib.DeadCodeReset(threshold=0.5)
    return Autoencoder(vqlib.NormEMAQuantizer(K, 16, reset=reset, **changes))


def theirs(**changes) -> Autoencoder:
    torch.manual_seed(0)
    settings = {"kmeans_init": True, "threshold_ema_dead_code": 2} | changes
    return Autoencoder(VectorQuantize(dim=16, codebook_size=K, **settings))


class Plain(nn.Module):
    """A quantizer nobody knows, with a trained codebook; returns (indices, vectors)."""

    def __init__(self, dim: int = 16):
        super().__init__()
        self.table = nn.Parameter(torch.randn(K, dim))

    def forward(self, z):
        indices = torch.cdist(z, self.table).argmin(-1)
        return z + (self.table[indices] - z).detach(), indices


ADAPTER = vqlib.Adapter(
    indices=lambda module, output: output[1],
    codebook=lambda module: module.table,
    counts=lambda module: None,
)


def adapter(**changes) -> vqlib.Adapter:
    return vqlib.Adapter(
        **({k: getattr(ADAPTER, k) for k in ("indices", "codebook", "counts")} | changes)
    )


# --- it changes nothing ---


@pytest.mark.parametrize("build", [ours, theirs, lambda: theirs(use_cosine_sim=True)])
def test_losses_weights_and_random_numbers_stay_the_same_to_the_bit(build):
    results = []
    for watched in (False, True):
        model = build()
        torch.manual_seed(1)
        if watched:
            with vqlib.watch(model) as w:
                losses = train(model, 12, val_every=4)
            assert len(w.history) == 15
        else:
            losses = train(model, 12, val_every=4)
        results.append((losses, model.state_dict(), torch.get_rng_state()))
    (losses, state, random), (losses_w, state_w, random_w) = results
    assert losses == losses_w
    assert torch.equal(random, random_w)
    assert state.keys() == state_w.keys()
    assert all(torch.equal(v, state_w[k]) for k, v in state.items() if isinstance(v, torch.Tensor))


def hooks(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_no_hook_stays_behind():
    model = ours()
    with vqlib.watch(model):
        train(model, 1)
        assert hooks(model) == 2
    assert hooks(model) == 0
    with pytest.raises(RuntimeError, match="broken loop"), vqlib.watch(model):
        raise RuntimeError("broken loop")
    assert hooks(model) == 0


def test_a_model_can_be_copied_and_saved_while_it_is_watched():
    model = ours()
    with vqlib.watch(model) as w:
        train(model, 2)
        twin = copy.deepcopy(model)
        train(twin, 3)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        train(torch.load(file, weights_only=False), 3)
    assert w.history["step"].tolist() == [1, 2]


# --- what it sees ---


def expected_rows(witness: Witness, window: int = 1) -> list[dict]:
    counts = witness.counts(K, training=True)
    return [
        usage.summarize(sum(counts[max(0, i - window + 1) : i + 1])) for i in range(len(counts))
    ]


@pytest.mark.parametrize("build", [ours, theirs])
def test_the_counts_are_those_of_the_indices_returned(build):
    model = build()
    witness = Witness(model.quantizer, lambda output: output[1])
    with vqlib.watch(model) as w:
        train(model, 6, val_every=3)
    rows = w.history[w.history["split"] == "train"]
    assert rows[list(usage.summarize(torch.ones(2)))].to_dict("records") == expected_rows(witness)
    val = w.history[w.history["split"] == "val"]
    first, second = (
        usage.summarize(sum(witness.counts(K, training=False)[i : i + 2])) for i in (0, 2)
    )
    assert val["used_codes"].tolist() == [first["used_codes"], second["used_codes"]]
    assert val["window_tokens"].tolist() == [80, 80]
    assert val["step"].tolist() == [3, 6]


def test_names_that_shorten_alike_stay_whole():
    model = nn.ModuleDict({"p": ours().quantizer})
    for outer, inner in (("q", "_orig_mod"), ("_orig_mod", "q")):
        model[outer] = nn.ModuleDict({inner: ours().quantizer})
    assert vqlib.watch(model).layers == ["p", "q._orig_mod", "_orig_mod.q"]


def test_every_and_window():
    model = ours()
    witness = Witness(model.quantizer, lambda output: output[1])
    with vqlib.watch(model, every=3, window=2) as w:
        train(model, 7)
    assert w.history["step"].tolist() == [3, 6]
    expected = expected_rows(witness, window=2)
    assert w.history["perplexity"].tolist() == [expected[i]["perplexity"] for i in (2, 5)]
    assert w.history["window_tokens"].tolist() == [80, 80]


def test_the_columns():
    model = ours()
    with vqlib.watch(model) as w:
        train(model, 3, val_every=3)
    history = w.history
    assert history.columns[0] == "layer"
    assert set(COLUMNS) <= set(history.columns)
    assert list(w.histories) == w.layers == ["quantizer"]
    assert list(w.histories["quantizer"].columns) == list(history.columns[1:])
    train_rows, val = history[history["split"] == "train"], history.iloc[-1]
    for column in ("resets", "encoder_similarity", "encoder_std", "cosine_error", "commit_loss"):
        assert train_rows[column].notna().all(), column
    for column in ("duplicates", "longest_code", "eval_change", "cosine_error", "commit_loss"):
        assert pd.notna(val[column]), column
    assert val["eval_change"] == 0
    assert history["drift"].isna().all() and history["recon_loss"].isna().all()
    settings = w.settings["quantizer"]
    assert settings["tokens_per_step"] == 40 and settings["codebook_size"] == K
    assert settings["decay"] == 0.9 and settings["dead_code_threshold"] == 0.5


def test_inputs_are_measured_as_they_are():
    model = theirs()
    seen = []
    model.quantizer.register_forward_hook(lambda m, args, out: seen.append((args[0], out[0])))
    with vqlib.watch(model) as w:
        train(model, 3)
    z, quantized = (t.detach().reshape(-1, 16) for t in seen[-1])  # 40 tokens: all are sampled
    last = w.history.iloc[-1]
    assert last["encoder_similarity"] == pytest.approx(usage.pairwise_similarity(z), abs=1e-5)
    assert last["encoder_std"] == pytest.approx(usage.feature_std(z), abs=1e-5)
    cosine = torch.cosine_similarity(z, quantized, dim=-1).mean().item()
    assert last["cosine_error"] == pytest.approx(1 - cosine, abs=1e-5)


def test_after_a_hundred_steps_inputs_are_sampled_in_some_rows():
    layer = vqlib.NormEMAQuantizer(16, 4)
    with vqlib.watch(layer) as w:
        for _ in range(112):
            layer(torch.randn(50, 4))
    known = w.history.set_index("step")[["encoder_similarity", "encoder_std", "cosine_error"]]
    assert [*known.dropna().index] == [*range(1, 101), 105, 110]
    assert w.history[["utilization", "commit_loss"]].notna().all(axis=None)


def test_the_last_row_shows_the_codebook_as_it_is_left():
    model = theirs()
    with vqlib.watch(model) as w:
        train(model, 3)
        model.quantizer._codebook.embed.data[0, 5] = model.quantizer._codebook.embed[0, 4]
        model.quantizer._codebook.embed.data[0, 5] *= 100
    last = w.history.iloc[-1]
    assert last["duplicates"] == usage.near_duplicates(model.quantizer.codebook, 0.999999) >= 1
    lengths = model.quantizer.codebook.norm(dim=-1)
    assert last["longest_code"] == pytest.approx(float(lengths.max() / lengths.median()))


def test_a_long_code_means_something_where_counts_are_kept():
    found = []
    for counts in (lambda module: None, lambda module: torch.ones(K)):
        model = Autoencoder(Plain())
        with vqlib.watch(model, adapters={Plain: adapter(counts=counts)}) as w:
            train(model, 2, val_every=1)
        found.append(w.history.loc[w.history["split"] == "val", "longest_code"])
        assert w.history["duplicates"].iloc[-1] == 0
    without, kept = found
    assert without.isna().all() and kept.notna().all()


# --- resets ---


def ledger_rows(resets: list[torch.Tensor], witness: Witness) -> list[dict]:
    """What the history should say, from the codes that were really reset at each step."""
    ledger, rows = ResetLedger(K, 10), []
    for codes, counts in zip(resets, witness.counts(K, training=True), strict=True):
        ledger.update(counts, codes)
        rows.append(ledger.row())
        ledger.clear()
    return rows


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("start", ["kmeans", "random"])
def test_the_resets_of_another_library_are_seen(cosine, start):
    model = theirs(use_cosine_sim=cosine, kmeans_init=start == "kmeans")
    witness = Witness(model.quantizer, lambda output: output[1])
    book = model.quantizer._codebook
    truth, replace = [], book.replace

    def noted(samples, batch_mask, seq_mask=None):
        truth[-1] = batch_mask[0].nonzero().flatten()
        return replace(samples, batch_mask, seq_mask)

    book.replace = noted
    model.quantizer.register_forward_pre_hook(
        lambda module, args: truth.append(torch.empty(0, dtype=torch.int64))
    )
    with vqlib.watch(model) as w:
        train(model, 14)
    expected = pd.DataFrame(ledger_rows(truth, witness))
    got = w.history[["resets", "re_resets", "survived"]].reset_index(drop=True)
    assert sum(len(codes) for codes in truth) > 20
    if start == "kmeans":  # the first step is k-means, and cannot be told apart
        assert got["resets"].isna().tolist() == [True] + [False] * 13
        assert len(truth[0]) == 0 or got["resets"][1:].sum() <= expected["resets"][1:].sum()
        assert got["resets"][1:].tolist() == expected["resets"][1:].tolist()
    else:
        pd.testing.assert_frame_equal(got, expected[list(got)], check_dtype=False)


def test_our_resets_are_those_of_last_reset():
    model = ours()
    model.quantizer.reset = vqlib.DeadCodeReset(threshold=1.2)
    truth = []
    model.quantizer.register_forward_hook(
        lambda m, args, out: truth.append(0 if m.last_reset is None else len(m.last_reset.codes))
    )
    with vqlib.watch(model) as w:
        train(model, 20)
    assert w.history["resets"].tolist() == truth and sum(truth) > 5


class Averaged(Plain):
    """A codebook that gradients do not move, beside counts."""

    def __init__(self):
        super().__init__()
        self.table.requires_grad_(False)
        self.register_buffer("counts", torch.zeros(K))


def test_a_reset_from_outside_is_seen():
    torch.manual_seed(0)
    model = Autoencoder(Averaged())
    witness = Witness(model.quantizer, lambda output: output[1])
    counted = adapter(counts=lambda module: module.counts)
    with vqlib.watch(model, adapters={Averaged: counted}) as w:
        train(model, 3)
        hit = witness.counts(K, True)[-1] > 0
        some = torch.cat([(~hit).nonzero()[:3], hit.nonzero()[:1]]).flatten()
        model.quantizer.table[some] = torch.randn(4, 16)  # of a code with hits one cannot tell
        train(model, 2)
    assert w.history["resets"].tolist() == [0, 0, 0, 3, 0]


LEARNED = {"kmeans_init": False, "learnable_codebook": True, "ema_update": False, "decay": 0.7}


def test_resets_of_a_codebook_that_gradients_move_are_told_by_its_counts():
    model = theirs(**LEARNED)
    book, expected = model.quantizer._codebook, []
    replace = book.replace

    def counting(samples, batch_mask, seq_mask=None):
        expected[-1] += int(batch_mask.sum())
        replace(samples, batch_mask=batch_mask, seq_mask=seq_mask)

    book.replace = counting
    model.quantizer.register_forward_pre_hook(lambda *_: expected.append(0))
    with vqlib.watch(model) as w:
        train(model, 40)
    assert sum(expected) > 100 and w.history["resets"].tolist() == expected
    assert "Resets were not counted" not in str(vqlib.diagnose(w))


def test_no_resets_are_told_where_they_cannot_be_seen():
    with vqlib.watch(Autoencoder(Plain()), adapters={Plain: ADAPTER}) as w:
        train(w._model, 3)
    shared = Autoencoder(
        ResidualVQ(dim=16, codebook_size=K, num_quantizers=2, shared_codebook=True)
    )
    with vqlib.watch(shared) as v:
        train(shared, 3)
    learned = theirs(threshold_ema_dead_code=0, learnable_codebook=True, ema_update=False)
    with vqlib.watch(learned) as u:
        train(learned, 3)
    twice = theirs(**LEARNED, in_place_codebook_optimizer=partial(torch.optim.Adam, lr=0.1))
    with vqlib.watch(twice) as t:  # a forward counts before its optimizer's step and after it
        train(twice, 3)
    for history in (w.history, v.history, u.history, t.history):
        assert history["resets"].isna().all() and history["used_codes"].notna().all()


# --- modes ---


class CountsInEvaluation(vqlib.NormEMAQuantizer):
    """The fault of counting in evaluation mode too."""

    def forward(self, z):
        output = super().forward(z)
        if not self.training:
            self.cluster_size += 0.25
        return output


def test_a_change_by_evaluation_is_measured():
    torch.manual_seed(0)
    model = Autoencoder(CountsInEvaluation(K, 16))
    with vqlib.watch(model) as w:
        train(model, 2, val_every=1)
    changes = w.history.loc[w.history["split"] == "val", "eval_change"]
    assert changes.tolist() == pytest.approx([0.5, 0.5])  # two batches each


def test_evaluation_before_training_and_in_inference_mode():
    model = theirs(kmeans_init=False)
    with vqlib.watch(model) as w:
        model.eval()
        with torch.inference_mode():
            model(batch(0))
            model(batch(1))
        train(model, 2)
        model.eval()
        with torch.inference_mode():
            model(batch(2))
    assert list(zip(w.history["step"], w.history["split"], strict=True)) == [
        (0, "val"),
        (1, "train"),
        (2, "train"),
        (2, "val"),
    ]


def test_masked_tokens_are_not_counted():
    model = theirs()
    witness = Witness(model.quantizer, lambda output: output[1])
    mask = torch.arange(10) < torch.tensor([3, 10, 5, 1])[:, None]
    with vqlib.watch(model) as w:
        train(model, 4, mask=mask)
    assert w.history["window_tokens"].tolist() == [19] * 4
    assert w.history["used_codes"].tolist() == [row["used_codes"] for row in expected_rows(witness)]


def test_a_batch_without_tokens():
    model = Autoencoder(Plain())
    with vqlib.watch(model, adapters={Plain: ADAPTER}) as w:
        model(batch(1)[:0])
        model(batch(1))
    assert w.history["step"].tolist() == [2]


def test_a_call_that_chooses_no_codes_is_left_out():
    model = theirs(kmeans_init=False, threshold_ema_dead_code=0)
    z = torch.randn(4, 10, 16)
    with vqlib.watch(model) as w:
        train(model, 2)
        model.quantizer(z, topk=3)
        model.quantizer(z, indices=torch.zeros(4, 10, dtype=torch.int64))  # moves codes too
        train(model, 1)
    assert w.history["step"].tolist() == [1, 2, 3]
    assert w.history["window_tokens"].tolist() == [40] * 3
    assert w.history["resets"].tolist() == [0] * 3


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_counts_a_forward_once(use_reentrant):
    class Checkpointed(Autoencoder):
        def forward(self, x):
            output = checkpoint(self.quantizer, self.encoder(x), use_reentrant=use_reentrant)
            return self.decoder(output[0]), output

    model = Checkpointed(Plain())
    with vqlib.watch(model, adapters={Plain: ADAPTER}) as w:
        train(model, 3)
    assert w.history["step"].tolist() == [1, 2, 3]


def test_a_compiled_model_is_followed():
    model = ours()
    witness = Witness(model.quantizer, lambda output: output[1])
    compiled = torch.compile(model, backend="aot_eager")
    with vqlib.watch(compiled) as w:
        train(compiled, 3)
    assert w.layers == ["quantizer"]
    assert w.history["used_codes"].tolist() == [r["used_codes"] for r in expected_rows(witness)]
    assert w.history["step"].tolist() == [1, 2, 3]


def test_a_model_that_ran_compiled_before_is_followed():
    model = Autoencoder(Plain())  # one graph: compiled code that knows of no hook
    compiled = torch.compile(model, backend="aot_eager")
    train(compiled, 2)
    with vqlib.watch(compiled, adapters={Plain: ADAPTER}) as w:
        train(compiled, 3)
    assert w.history["step"].tolist() == [1, 2, 3]


def test_a_scripted_module_beside_the_quantizer():
    model = ours()
    model.encoder = torch.jit.script(model.encoder)
    with vqlib.watch(model) as w:
        train(model, 2)
    assert w.layers == ["quantizer"] and w.history["step"].tolist() == [1, 2]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_graph_that_must_not_break_is_refused(in_place):
    model = ours()
    if in_place:
        model.compile(backend="aot_eager", fullgraph=True)
    else:
        model = torch.compile(model, backend="aot_eager", fullgraph=True)
    with pytest.raises(ValueError, match="fullgraph"):
        vqlib.watch(model)


def test_wrappers_for_several_devices(tmp_path):
    model = ours()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        with vqlib.watch(wrapped) as w:
            train(wrapped, 2)
        assert w.layers == ["quantizer"] and w.history["step"].tolist() == [1, 2]
    finally:
        torch.distributed.destroy_process_group()
    parallel = nn.DataParallel(model)
    with vqlib.watch(parallel) as w:
        train(parallel, 2)
    assert w.layers == ["quantizer"] and w.history["step"].tolist() == [1, 2]
    parallel.device_ids = [0, 1]
    with pytest.raises(ValueError, match="DistributedDataParallel"):
        vqlib.watch(parallel)


# --- live ---


def test_the_history_can_be_read_while_it_grows():
    model = theirs()
    seen, stop = [], threading.Event()

    def reader():
        while not stop.is_set():
            seen.append((len(w.history), str(w), w.settings))

    with vqlib.watch(model) as w:
        assert w.history.empty and "nothing seen" in str(w)
        thread = threading.Thread(target=reader)
        thread.start()
        train(model, 2 * KEEP + 5, val_every=10)
        stop.set()
        thread.join()
        now = w.history
    lengths = [n for n, _, _ in seen]
    assert lengths == sorted(lengths)
    assert len(now) == 2 * KEEP + 5 + 6
    assert now["step"].is_monotonic_increasing
    assert f"step {2 * KEEP + 5}" in str(w) and "train utilization" in str(w)


def test_reading_adds_nothing():
    once, often = [], []
    for reads, tables in ((False, once), (True, often)):
        model = ours()
        with vqlib.watch(model) as w:
            for _ in range(3):
                train(model, 2, val_every=2)
                _ = reads and w.history
        tables.append(w.history)
    pd.testing.assert_frame_equal(once[0], often[0])


def test_a_watch_can_be_started_and_stopped_by_hand():
    model = ours()
    w = vqlib.watch(model).start()
    with pytest.raises(RuntimeError, match="running already"):
        w.start()
    train(model, 2)
    w.stop()
    train(model, 2)
    w.start()
    train(model, 1)
    w.stop()
    assert w.history["step"].tolist() == [1, 2, 3]


# --- errors ---


def test_a_model_without_a_quantizer():
    class VQFrontEnd(nn.Module):
        def forward(self, x):
            return x

    with pytest.raises(ValueError, match=r"encoder \(VQFrontEnd\)") as error:
        vqlib.watch(nn.ModuleDict({"encoder": VQFrontEnd(), "head": nn.Linear(2, 2)}))
    assert "vqlib.Adapter(indices=" in str(error.value)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"model": "model"}, "torch.nn.Module"),
        ({"every": 0}, "every must be a whole number"),
        ({"window": 1.5}, "window must be a whole number"),
        ({"adapters": [ADAPTER]}, "adapters must be a dict .* got list"),
        ({"adapters": {"Plain": ADAPTER}}, "class of modules"),
        ({"adapters": {Plain: lambda module, output: output}}, "vqlib.Adapter for Plain"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        vqlib.watch(**({"model": ours()} | wrong))


@pytest.mark.parametrize(
    "adapters", [None, {Plain: adapter(codebook=lambda module: module.embedding)}]
)
def test_a_lazy_codebook_is_refused(adapters):
    class LazyVQ(Plain):
        def __init__(self):
            super().__init__()
            self.embedding = nn.UninitializedParameter()

    model = Autoencoder(LazyVQ())
    with pytest.raises(ValueError, match="LazyVQ is lazy and not initialised yet"):
        vqlib.watch(model, adapters=adapters)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"codebook": lambda m: m.table[0]},
            r"codebook must give a tensor \(K, D\).*shape \(16,\)",
        ),
        ({"codebook": lambda m: None}, "codebook_size, as its codebook is None"),
        ({"counts": lambda m: m.table}, r"counts must give a tensor \(K,\)"),
        ({"counts": lambda m: torch.ones(7)}, r"one count a code, lengths \[32\].*shape \(7,\)"),
        ({"counts": lambda m: 2 * [torch.ones(K)]}, r"one count a code.*shape \(32,\), .*\(32,\)"),
        ({"settings": lambda m: 3}, "settings must give a dict"),
        ({"settings": lambda m: {"decay": 9.0}}, "decay must be a number from 0 to 1, got 9.0"),
        ({"counts": lambda m: m.nothing}, r"^layer 'quantizer' \(Plain\): .*counts fails: Attrib"),
    ],
)
def test_an_adapter_of_the_wrong_kind_is_refused_before_training(changes, message):
    with pytest.raises(TypeError, match=message):
        vqlib.watch(Autoencoder(Plain()), adapters={Plain: adapter(**changes)})


@pytest.mark.parametrize(
    "indices, message",
    [
        (lambda m, out: out[0], "indices must give integers.*float32"),
        (lambda m, out: [out[1], out[1]], "1 tensors, one a codebook"),
        (lambda m, out: out[9], r"^layer 'quantizer' \(Plain\): .*indices fails: IndexError"),
    ],
)
def test_indices_of_the_wrong_kind_are_refused_at_the_first_step(indices, message):
    model = Autoencoder(Plain())
    with (
        pytest.raises(TypeError, match=message),
        vqlib.watch(model, adapters={Plain: adapter(indices=indices)}),
    ):
        train(model, 1)


@pytest.mark.parametrize("shift", [K, -K - 5])
def test_an_index_out_of_range(shift):
    model = Autoencoder(Plain())
    beyond = adapter(indices=lambda m, out: out[1] + shift)
    with (
        pytest.raises(OutOfRange, match=r"40 indices outside \[0, 32\) at step 1"),
        vqlib.watch(model, adapters={Plain: beyond}),
    ):
        train(model, 1)


def test_a_guess_that_was_wrong_is_given_up():
    class MyQuantizer(Plain):
        def __init__(self):
            super().__init__()
            self.codebook = self.table

        def forward(self, z):
            return (super().forward(z)[0] / 2,)  # no indices, and no rows of the codebook

    model = Autoencoder(nn.Sequential(MyQuantizer()))
    w = vqlib.watch(model).start()
    with pytest.warns(UserWarning, match="'quantizer.0' .*not followed any more"):
        model(batch(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, 2)
    w.stop()
    assert w.history.empty and "given up" in str(w)


def test_a_watch_that_saw_nothing_says_so():
    model = ours()
    with pytest.warns(UserWarning, match="nothing was seen of the layers quantizer"):  # noqa: SIM117
        with vqlib.watch(model) as w:
            train(copy.deepcopy(model), 1)
    assert w.history.empty and "used_codes" in w.history


def test_a_layer_that_no_forward_reached_is_named():
    model = ours()
    model.spare = theirs().quantizer
    with pytest.warns(UserWarning, match="of the layers spare, while others") as caught:  # noqa: SIM117
        with vqlib.watch(model) as w:
            train(model, 2)
    assert len(caught) == 1
    assert w.histories["spare"].empty and list(w.histories["spare"]) == list(COLUMNS)
    assert w.history["layer"].unique().tolist() == ["quantizer"]
    assert "tokens_per_step" not in w.settings["spare"]
    assert "quantizer: step 2" in str(w) and "spare: nothing seen: no token" in str(w)


def test_layers_seen_in_evaluation_alone_are_not_named():
    model = theirs(kmeans_init=False).eval()
    with warnings.catch_warnings(), vqlib.watch(model):
        warnings.simplefilter("error")
        model(batch(1))


def test_a_watch_whose_first_row_is_not_due_yet_does_not_complain():
    model = ours()
    with warnings.catch_warnings(), vqlib.watch(model, every=10) as w:
        warnings.simplefilter("error")
        train(model, 3)
        assert w.settings["quantizer"]["tokens_per_step"] == 40
        assert "no row is due yet" in str(w)
    assert w.history.empty
