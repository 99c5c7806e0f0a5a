"""AdamW, without loading the compiler for those who never compile."""

from inspect import unwrap

import torch


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, to the bit, in a process that starts a second earlier.

    PyTorch keeps its compiler off these methods, and to do so imports it; a training of ours is
    not compiled around its optimizer.
    """

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
