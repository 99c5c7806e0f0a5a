"""Our AdamW is torch's, without its compiler."""

import torch
from torch import nn

from tests.test_light_import import modules
from vqlib.training.optimizer import AdamW

TRAIN = """
from vqlib.training.config import TrainConfig
from vqlib.training.trainer import train
train(TrainConfig(steps=2, image_size=16, batch_size=4, codebook_size=8), progress=False)
"""


def trained(kind: type[torch.optim.AdamW]) -> list[torch.Tensor]:
    """The parameters after steps at a changing rate, on the way through a checkpoint."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 4)
    settings = {"betas": (0.945, 0.999), "weight_decay": 1e-2}
    optimizer = kind(layer.parameters(), **settings)
    for step in range(20):
        if step == 10:
            state = optimizer.state_dict()
            optimizer = kind(layer.parameters(), **settings)
            optimizer.load_state_dict(state)
        optimizer.param_groups[0]["lr"] = 1e-3 * (step + 1)
        optimizer.zero_grad()
        layer(torch.randn(16, 8)).square().sum().backward()
        optimizer.step()
    return list(layer.parameters())


def test_it_gives_the_same_bits():
    for ours, theirs in zip(trained(AdamW), trained(torch.optim.AdamW), strict=True):
        assert torch.equal(ours, theirs)


def test_a_group_is_added_and_gradients_are_dropped():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = AdamW([first])
    optimizer.add_param_group({"params": [second]})
    (first.sum() + second.sum()).backward()
    optimizer.step()
    assert (first < 1).all() and (second < 1).all()
    optimizer.zero_grad()
    assert first.grad is None and second.grad is None


def test_a_training_loads_no_compiler():
    assert not {"torch._dynamo", "torch._inductor"} & modules(TRAIN)
