"""A layer that is not recognised gets an adapter with its own buffers, and that adapter works."""

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import vqlib
from vqlib.watching.suggest import adapter_text


class TableQuantizer(nn.Embedding):
    """The codebook is the layer's own weight; its last row pads."""

    def __init__(self):
        super().__init__(17, 8, padding_idx=16)
        self.register_buffer("cluster_size_ema", torch.ones(16))

    def forward(self, z):
        codes = torch.cdist(z, self.weight[:-1]).argmin(-1)
        return super().forward(codes), codes


class StackedQuantizer(nn.Module):
    """Levels (Q, K, D) in one buffer; codes (N, Q)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("tables", torch.randn(2, 16, 8))

    def forward(self, z):
        rest, total, codes = z, 0, []
        for table in self.tables:
            codes.append(torch.cdist(rest, table).argmin(-1))
            total, rest = total + table[codes[-1]], rest - table[codes[-1]]
        return {"codes": torch.stack(codes, -1), "z": total}


class FirstBatch(nn.Module):
    """Channels come first; the first batch sets the codes, so that any number of features runs."""

    def __init__(self):
        super().__init__()
        self.register_buffer("k", torch.zeros(16, 8))

    def forward(self, x):
        rows = x.mT.flatten(0, 1)
        if not self.k.any():
            self.k = rows[torch.randint(len(rows), (16,))] + torch.randn(16, rows.shape[1])
        codes = torch.cdist(rows, self.k).argmin(-1)
        return codes.view(len(x), -1), self.k[codes].view(len(x), -1, x.shape[1]).mT


class Projecting(nn.Module):
    """Tokens have more features than codes; channels first, and codes come late."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv1d(16, 4, 1), nn.Conv1d(4, 16, 1)
        self.codebook = nn.Embedding(32, 4)

    def forward(self, z):
        low = self.down(z)
        codes = torch.cdist(low.mT, self.codebook.weight).argmin(-1)
        near = self.codebook(codes).mT
        losses = (low - near).square().mean((1, 2))
        return self.up(near), losses, losses, codes, low


class Squeeze(nn.Module):
    """Not named like a quantizer, and codes come first."""

    def __init__(self):
        super().__init__()
        self.register_buffer("k", torch.randn(16, 8))
        self.register_buffer("k_sum", torch.randn(16, 8))
        self.register_buffer("k_elem", torch.ones(16))

    def forward(self, z):
        codes = torch.cdist(z, self.k).argmin(-1)
        return codes, self.k[codes]


class WarmQuantizer(nn.Module):
    """Its forward takes more than tokens."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(16, 8)

    def forward(self, z, heat):
        codes = (torch.cdist(z, self.embedding.weight) * heat).argmin(-1)
        return self.embedding(codes), codes


def test_an_embedding_may_be_the_quantizer_itself():
    layer = TableQuantizer()
    with vqlib.watch(layer.train()) as w:
        layer(torch.randn(40, 8))
    assert w.settings["TableQuantizer"]["codebook_size"] == 16
    assert vqlib.audit(TableQuantizer, ranks=False)["loss-hides-collapse"]
    with pytest.raises(ValueError, match="no quantizer"):
        vqlib.watch(nn.Embedding(16, 8))


OWN = {
    StackedQuantizer: ["output['codes'].unbind(-1)", "list(m.tables)"],
    Squeeze: ["output[0]", "m.k,", "m.k_elem", "output[1]"],
}


@pytest.mark.parametrize("kind", OWN)
def test_the_message_holds_an_adapter_for_this_layer(kind):
    layer = kind()
    with pytest.raises(ValueError) as refused:
        vqlib.watch(nn.Sequential(nn.Linear(8, 8), layer))
    text = re.search(r"vqlib\.Adapter\(.*\)(?=\}\))", str(refused.value)).group()
    assert kind.__name__ in str(refused.value) and all(own in text for own in OWN[kind])
    assert text == adapter_text(layer)
    with pytest.raises(TypeError, match="is not recognised; say how to read it: adapter=") as told:
        vqlib.audit(kind, ranks=False)
    assert text in str(told.value)

    adapter = eval(text, {"vqlib": vqlib})  # what its owner would type
    with vqlib.watch(layer.train(), adapters={kind: adapter}) as w:
        layer(torch.randn(40, 8))
    assert all(len(table) == 1 for table in w.histories.values())
    assert vqlib.audit(kind, adapter=adapter, ranks=False)["loss-hides-collapse"]


def test_the_codes_of_a_layer_that_projects_its_tokens_are_found():
    text = adapter_text(Projecting())
    assert "output: output[3]" in text and "m.codebook.weight" in text
    adapter = eval(text, {"vqlib": vqlib})
    assert vqlib.audit(Projecting, adapter=adapter, dim=16, ranks=False)["not-reproducible"]


def test_features_are_not_taken_for_tokens():
    text = adapter_text(FirstBatch())
    assert "call=lambda m, z: m(z.T[None])" in text
    assert "output[1].movedim(1, -1).flatten(0, -2)" in text
    adapter = eval(text, {"vqlib": vqlib})
    assert vqlib.audit(FirstBatch, adapter=adapter, ranks=False)["not-reproducible"]


def test_what_a_plain_object_holds_is_found():
    class ObjectQuantizer(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(16, 8))

        def forward(self, z):
            codes = torch.cdist(z, self.table).argmin(-1)
            output = SimpleNamespace(z_q=self.table[codes], codes=codes, name="vq")
            output.own = output  # an end is found all the same
            return output

    text = adapter_text(ObjectQuantizer())
    assert "output: output.codes" in text and "output: output.z_q" in text
    adapter = eval(text, {"vqlib": vqlib})
    assert vqlib.audit(ObjectQuantizer, adapter=adapter, ranks=False)["not-reproducible"]


def test_codes_that_are_not_given_are_left_to_their_owner():
    class Sampling(nn.Module):
        def __init__(self):
            super().__init__()
            self.vars = nn.Parameter(torch.randn(1, 16, 8))
            self.logits = nn.Linear(8, 16)

        def forward(self, z):
            batch, tokens, _ = z.shape
            return {"x": self.logits(z).softmax(-1).view(batch, tokens, 16) @ self.vars[0]}

    text = adapter_text(Sampling())
    assert "indices=lambda m, output: ...," in text and "call=lambda m, z: m(z[None])" in text
    with pytest.raises(TypeError, match="indices"):
        vqlib.audit(Sampling, adapter=eval(text, {"vqlib": vqlib}), ranks=False)


def test_what_forward_needs_besides_tokens_is_named():
    with pytest.raises(ValueError, match="needs `heat` besides the tokens") as told:
        vqlib.audit(WarmQuantizer, ranks=False)
    text = re.search(r"vqlib\.Adapter\(.*\)", str(told.value)).group()
    assert "call=lambda m, z: m(z, heat=...)" in text
    adapter = eval(text.replace("heat=...", "heat=2.0"), {"vqlib": vqlib})
    assert vqlib.audit(WarmQuantizer, adapter=adapter, ranks=False)["cold-start"]


def test_of_a_module_that_holds_quantizers_one_of_these_is_to_be_audited():
    class Levels(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([TableQuantizer(), TableQuantizer()])

    with pytest.raises(TypeError, match=r"layers\.0") as told:
        vqlib.audit(Levels, ranks=False)
    assert "get_submodule" in str(told.value)


def test_suggesting_leaves_a_layer_and_the_generators_as_they_were():
    layer = StackedQuantizer().train()
    before, state = layer.tables.clone(), torch.get_rng_state()
    adapter_text(layer)
    assert layer.training and torch.equal(layer.tables, before)
    assert torch.equal(torch.get_rng_state(), state)
