"""Code that torch.compile leaves alone."""

import torch
from torch import nn

from vqlib.quantization.compiling import uncompiled


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.compiling = []

    def forward(self, x):
        return self.counted(x + 1) * 2

    @uncompiled
    @torch.no_grad()
    def counted(self, x):
        self.compiling.append(torch.compiler.is_compiling())
        return self.inner(x)

    def inner(self, x):
        self.compiling.append(torch.compiler.is_compiling())
        return x.sin()


def test_the_graph_breaks_around_it_and_nothing_inside_is_compiled():
    layer, targets = Layer(), []

    def backend(graph_module, inputs):
        targets.extend(str(node.target) for node in graph_module.graph.nodes)
        return graph_module.forward

    compiled = torch.compile(layer, backend=backend)
    x = torch.arange(3.0)
    for _ in range(3):
        torch.testing.assert_close(compiled(x), (x + 1).sin() * 2)
    assert any("add" in t for t in targets) and any("mul" in t for t in targets)
    assert not any("sin" in t for t in targets)
    assert layer.compiling == [False] * 6
