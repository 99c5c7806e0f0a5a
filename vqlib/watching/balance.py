"""The two gradients at a quantizer's input: of its own loss, and through what it returns."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

MOST_NODES = 1000  # of a layer's graph; a longer walk has left the layer


class Norms:
    """Squared lengths of the two gradients, as backward passes add to them.

    A second pass counts as if at right angles to the first: no gradient is kept for it.
    """

    def __init__(self):
        self.own: Tensor | None = None  #: scalar, of the layer's loss as it enters the total
        self.task: Tensor | None = None  #: scalar, of what comes back through the output

    def add(self, which: str, gradient: Tensor) -> None:
        square = torch.linalg.vector_norm(gradient, dtype=torch.float32).square()
        before = getattr(self, which)
        setattr(self, which, square if before is None else before + square)

    def ratio(self) -> float:
        """|own| / |task|; NaN if one was not seen, or neither is above 0."""
        if self.own is None or self.task is None:
            return math.nan
        own, task = float(self.own), float(self.task)
        ratio = math.sqrt(own / task) if task > 0 else math.nan
        return ratio if math.isfinite(ratio) else math.nan


class Balance:
    """Waits for the backward pass of one forward, and fills its `Norms` from it.

    A hook on the loss and one on the output get the gradients that arrive there. Each is
    taken on to the input by a pass of its own through the layer, in which nothing is
    accumulated: what the training computes stays the same to the bit. It looks only where that
    second pass can do nothing else: see `_can_be_passed_twice`. An error in it is swallowed.

    Holds the forward's graph until it is let go; the graph holds it weakly.
    """

    def __init__(self, z: Tensor, quantized: Tensor, loss: Tensor):
        self.norms = Norms()
        self.busy = False
        self.seen = (z, quantized, loss)
        self.goal = get_gradient_edge(z)
        self.edges = {"task": get_gradient_edge(quantized), "own": get_gradient_edge(loss)}
        for which, tensor in (("task", quantized), ("own", loss)):
            tensor.register_hook(_hook(weakref.ref(self), which))
        self.hooked = self._hooks()

    @classmethod
    def of(cls, z, quantized, loss) -> Balance | None:
        """For a layer's input, output and loss; None if there is nothing to see, or not safely."""
        tensors = (z, quantized, loss)
        if not all(isinstance(t, Tensor) and t.requires_grad for t in tensors):
            return None
        if quantized.grad_fn is None or loss.grad_fn is None or quantized is loss:
            return None
        try:
            return cls(*tensors) if _can_be_passed_twice(*tensors) else None
        except Exception:  # a graph of another kind; what cannot be seen stays NaN
            return None

    def take(self, which: str, gradient: Tensor) -> None:
        if self.busy or self._hooks() != self.hooked:  # ours, or a hook of the user's came since
            return
        self.busy = True
        try:
            edge, grad = self.edges[which], gradient.detach()
            (at_input,) = torch.autograd.grad(edge, self.goal, grad, retain_graph=True)
            self.norms.add(which, at_input)
        except Exception:
            pass
        finally:
            self.busy = False

    def _hooks(self) -> list[int]:
        return [_hooks(t) for t in self.seen]


def _hooks(tensor: Tensor) -> int:
    """How many are told of a tensor's gradient, among them its own ``grad`` if it is kept."""
    return len(tensor._backward_hooks or ()) + tensor.retains_grad


def _hook(balance: Callable[[], Balance | None], which: str) -> Callable[[Tensor], None]:
    def hook(gradient: Tensor) -> None:
        alive = balance()
        if alive is not None:
            alive.take(which, gradient)

    return hook


def _can_be_passed_twice(z: Tensor, quantized: Tensor, loss: Tensor) -> bool:
    """Whether a backward pass from output and loss to the input does nothing but compute it.

    Not if someone's hook would be called again, or a kept gradient added to; if saved tensors
    are not simply there, as in activation checkpointing, which runs the layer anew; or if a step
    is a function of Python's, which may do anything: compiled code, or a sum over processes in
    which others do not join.
    """
    if any(_hooks(t) for t in (z, quantized, loss)):
        return False
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        return False
    goal = get_gradient_edge(z).node
    return all(_plain_between(t.grad_fn, goal) for t in (quantized, loss))


def _plain_between(start, goal) -> bool:
    """Whether ``goal`` is reached from the node ``start`` over torch's own nodes alone."""
    seen, waiting, reached = set(), [start], False
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node == goal:
            reached = True
            continue
        if type(node).__module__ != "builtins" or len(seen) >= MOST_NODES:
            return False
        seen.add(node)
        waiting += [n for n, _ in node.next_functions]
    return reached
