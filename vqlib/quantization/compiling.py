"""What torch.compile leaves alone, without loading the compiler for those who never compile."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """As `torch.compiler.disable`, which imports torch._dynamo at once and doubles torch's time.

    Before torch._dynamo is imported nothing is compiled, so there is nothing to disable.
    """

    disabled: list[Callable[P, R]] = []  # made once: to make it takes longer than most calls

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*args, **kwargs)

    return call
