"""vqlib.ranks without other processes; with two of them, see test_quantizer."""

import torch

from vqlib.quantization import distributed


def test_alone_each_is_the_identity_and_returns_the_very_tensor():
    tensor = torch.arange(3.0)
    assert not distributed.many()
    for function in (distributed.sum_over_ranks, distributed.from_first_rank):
        assert function(tensor) is tensor
        assert tensor.tolist() == [0, 1, 2]


def test_a_group_of_one_is_alone(tmp_path):
    address = f"file://{tmp_path / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    try:
        assert not distributed.many()
    finally:
        torch.distributed.destroy_process_group()
