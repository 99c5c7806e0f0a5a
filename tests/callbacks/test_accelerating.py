"""A loop around the real Accelerate, and what all callbacks are made of."""

import logging

import accelerate
import pytest
import torch
from torch import multiprocessing
from vector_quantize_pytorch import ResidualVQ

import vqlib
from tests.callbacks import trained
from tests.watching.watched_models import Autoencoder, batch, train
from vqlib.callbacks import Following

NAME = "vqlib/quantizer"


def accelerator(folder, **more) -> accelerate.Accelerator:
    found = accelerate.Accelerator(cpu=True, project_dir=folder, **more)
    found.init_trackers("run")
    return found


def loop(accelerator, model, steps: int, **options):
    """Trains as people do with Accelerate; (the following, steps done)."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model, optimizer = accelerator.prepare(model, optimizer)
    with vqlib.callbacks.accelerate(accelerator, model, **options) as following:
        for step in range(1, steps + 1):
            loss = trained.loss_of(model, batch(step))
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            if step % 5 == 0:
                following.log(step)
            if accelerator.check_trigger():
                break
    accelerator.end_training()
    return following, step


@pytest.mark.parametrize("build", [trained.ours, trained.theirs])
def test_tensorboard(build, tmp_path):
    following, _ = loop(accelerator(tmp_path, log_with="tensorboard"), build(), 20)
    written = trained.tensorboard(tmp_path, f"{NAME}/utilization")
    trained.assert_among(written, trained.expected(following.watch, "train"), [5, 10, 15, 20])


def test_a_hopeless_training_pulls_the_trigger(tmp_path):
    alarms = {"every": 2, "warm_up": 0, "patience": 2, "on_alarm": lambda alarm: None}
    options = {"alarms": alarms, "stop_if": {"codebook-collapse"}}
    following, steps = loop(accelerator(tmp_path), trained.collapsed(), 30, **options)
    assert following.should_stop and steps == 5


def test_it_asks_for_an_accelerator():
    with pytest.raises(TypeError, match=r"an accelerate.Accelerator, got Autoencoder"):
        vqlib.callbacks.accelerate(trained.ours(), trained.ours())


def test_an_exception_ends_the_watch(tmp_path):
    model = trained.ours()
    with (
        pytest.raises(RuntimeError, match="broken loop"),
        vqlib.callbacks.accelerate(accelerator(tmp_path), model),
    ):
        raise RuntimeError("broken loop")
    assert trained.hooks(model) == 0


# --- the numbers ---


def test_numbers_tell_what_is_new():
    model = trained.ours()
    with Following(model, columns=None) as following:
        assert following.numbers() == {}
        train(model, 7)
        one = following.numbers()
        assert following.numbers() == {}
        train(model, 4, val_every=2)
        two = following.numbers()
        assert following.numbers() == {}  # the evaluation under way was told
        train(model, 1)
        three = following.numbers()
    history = following.watch.history
    rows = history.query("split == 'train'")
    assert one[f"{NAME}/resets"] == rows["resets"].iloc[:7].sum()
    assert two[f"{NAME}/resets"] == rows["resets"].iloc[7:11].sum()
    assert two[f"{NAME}/utilization"] == rows["utilization"].iloc[10]
    val = history.query("split == 'val'")
    assert two[f"{NAME}/val_perplexity"] == val["perplexity"].iloc[-1]
    assert not [name for name in three if "val_" in name]


def test_each_codebook_has_its_name_and_its_findings(caplog):
    torch.manual_seed(0)
    model = Autoencoder(ResidualVQ(dim=16, codebook_size=32, num_quantizers=2))
    torch.nn.init.zeros_(model.encoder.weight)
    model.encoder.requires_grad_(False)
    with caplog.at_level(logging.CRITICAL), Following(model, alarms={"every": 5}) as following:
        train(model, 12)
        found = following.numbers()
    names = {f"vqlib/{layer}/{n}" for layer in following.watch.layers for n in ("critical",)}
    assert names <= found.keys() and all(found[name] >= 1 for name in names)


def test_a_codebook_of_several_is_named_without_brackets():
    class Two(torch.nn.Module):
        def forward(self, z):
            return z, torch.zeros(z.shape[:-1], dtype=torch.long)

    book = torch.randn(4, 16)
    adapter = vqlib.Adapter(
        indices=lambda module, output: [output[1], output[1]], codebook=lambda module: [book, book]
    )
    layer = Two()
    with Following(layer, adapters={Two: adapter}, alarms=False) as following:
        layer(torch.randn(3, 5, 16))
        found = following.numbers()
    assert {name.rpartition("/")[0] for name in found} == {"vqlib/Two.0", "vqlib/Two.1"}


def ask(rank: int, folder: str, answers) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=2
    )
    model = trained.ours()  # one quantizer on both, which resets on both or waits for ever
    if rank == 1:
        torch.nn.init.zeros_(model.encoder.weight)
        model.encoder.requires_grad_(False)
    alarms = {"every": 2, "warm_up": 0, "patience": 2, "on_alarm": lambda alarm: None}
    following = Following(model, alarms=alarms, stop_if={"encoder-collapse"}).start()
    for step in range(1, 12):
        trained.loss_of(model, batch(step))
        if following.all_should_stop(step, step - 1):
            break
    following.stop()
    answers.put((rank, following.should_stop, step))
    torch.distributed.destroy_process_group()


def test_all_processes_stop_at_one_step_if_one_of_them_should(tmp_path):
    answers = multiprocessing.get_context("spawn").Queue()
    multiprocessing.spawn(ask, (str(tmp_path), answers), nprocs=2)
    (_, first, step), (_, second, other) = sorted(answers.get() for _ in range(2))
    assert (first, second) == (False, True) and step == other < 11
