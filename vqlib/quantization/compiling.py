"""What torch.compile leaves alone, without loading the compiler for those who never compile."""

import sys
from collections.abc import Callable
from functools import wraps

import torch


def uncompiled(function: Callable) -> Callable:
    """As `torch.compiler.disable`, which imports torch._dynamo at once and doubles torch's time.

    Before torch._dynamo is imported nothing is compiled, so there is nothing to disable.
    """

    @wraps(function)
    def call(*args, **kwargs):
        if "torch._dynamo" in sys.modules:
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return call
