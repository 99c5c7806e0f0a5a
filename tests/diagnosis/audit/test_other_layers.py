"""The audit and the watch of layers written by others, whose resets do nothing or never end."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from vector_quantize_pytorch import VectorQuantize

import vqlib

SIZE, DIM = 32, 8


class AveragedQuantizer(nn.Module):
    """Moving averages of sums and counts; ``early`` resets before the update, which wins."""

    def __init__(self, threshold=1.0, early=False, names=("threshold_ema_dead_code", "N")):
        super().__init__()
        self.ema_decay, self.early, self.names = 0.9, early, names
        if names[0]:
            setattr(self, names[0], threshold)
        self.least = threshold
        self.register_buffer("codebook", torch.randn(SIZE, DIM))
        self.register_buffer("sums", self.codebook * 3)
        self.register_buffer(names[1], torch.full((SIZE,), 3.0))

    @property
    def held(self):
        return getattr(self, self.names[1])

    def forward(self, z):
        lead, z = z.shape[:-1], z.reshape(-1, DIM)
        indices = torch.cdist(z, self.codebook).argmin(-1)
        quantized = self.codebook[indices]
        if self.training:
            if self.early:
                self.reset(z)
            hot = F.one_hot(indices, SIZE).to(z)
            self.held.lerp_(hot.sum(0), 1 - self.ema_decay)
            self.sums.lerp_(hot.T @ z, 1 - self.ema_decay)
            self.codebook.copy_(self.sums / self.held.clamp(min=1e-6)[:, None])
            if not self.early:
                self.reset(z)
        loss = F.mse_loss(z, quantized)
        return quantized.view(*lead, DIM), indices.view(lead), loss

    def reset(self, z):
        dead = self.held < self.least
        self.codebook[dead] = z[torch.randint(len(z), (int(dead.sum()),))]
        if not self.early:
            self.held[dead] = 2 * self.least
            self.sums[dead] = self.codebook[dead] * 2 * self.least


def collapsed(layer):
    """A watch of 150 steps, the last 120 of them on data in two places."""
    torch.manual_seed(0)
    places = torch.randn(SIZE, DIM)
    with vqlib.watch(layer.train()) as w:
        for step in range(150):
            some = torch.randint(SIZE if step < 30 else 2, (96,))
            layer(places[some] + 0.05 * torch.randn(96, DIM))
    return w


NAMES = [("threshold_ema_dead_code", "cluster_size_ema"), ("dead_threshold", "N")]
NAMES += [("threshold", "k_elem"), ("restart_threshold", "embedding_count")]


@pytest.mark.parametrize("names", NAMES)
def test_thresholds_counts_and_decays_are_read_by_their_usual_names(names):
    w = vqlib.watch(AveragedQuantizer(0.7, names=names))
    (settings,) = w.settings.values()
    assert settings["dead_code_threshold"] == 0.7 and settings["decay"] == 0.9
    found = vqlib.audit(lambda: AveragedQuantizer(0.7, names=names), ranks=False)
    assert found["reset-never-fires"].severity == "clear"


def test_a_threshold_without_counts_may_be_of_something_else():
    class SoftQuantizer(nn.Module):
        threshold, gamma = 0.5, 0.9

        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(SIZE, DIM)

        def forward(self, z):
            return z

    (settings,) = vqlib.watch(SoftQuantizer()).settings.values()
    assert not settings.keys() & {"dead_code_threshold", "decay"}


@pytest.mark.parametrize("names", [*NAMES, (None, "cluster_size"), (None, "own_name")])
def test_the_audit_finds_a_reset_that_the_same_step_overwrites(names):
    found = vqlib.audit(lambda: AveragedQuantizer(early=True, names=names), ranks=False)
    lasts = found["reset-does-not-survive"]
    assert lasts.severity == "critical" and "same step" in lasts.cause
    assert "running sum" in lasts.remedy
    assert found["reset-never-fires"].severity == "clear"


def test_the_audit_finds_a_reset_that_is_never_called():
    class UncalledQuantizer(AveragedQuantizer):
        def reset(self, z):
            pass

    found = vqlib.audit(UncalledQuantizer, ranks=False)
    assert found["reset-never-fires"].severity == "critical"
    assert found["reset-does-not-survive"].severity == "not applicable"


def test_the_watch_finds_a_reset_that_the_same_step_overwrites():
    found = vqlib.diagnose(collapsed(AveragedQuantizer(early=True)))
    never, collapse = found["reset-never-fires"], found["codebook-collapse"]
    assert never.severity == "critical" and "own threshold" in never.cause
    assert collapse.severity == "critical" and "turn on" not in collapse.remedy


def test_a_reset_that_acts_is_seen():
    found = vqlib.diagnose(collapsed(AveragedQuantizer()))
    assert found["reset-never-fires"].severity == "clear"
    assert "turn on" not in found["codebook-collapse"].remedy


@pytest.mark.parametrize("early", [False, True])
def test_a_layer_with_counts_whose_reset_cannot_be_examined_is_not_healthy(early):
    layer = lambda: AveragedQuantizer(1e-30, early, (None, "cluster_size"))  # noqa: E731
    found = vqlib.audit(layer, ranks=False)
    assert found["reset-never-fires"].severity == "unknown"
    assert found.verdict == "undecided"


def test_what_passed_without_a_reset_is_told_from_a_table():
    steps = range(1, 401)
    table = {"step": steps, "used_codes": [40 if s < 30 else 5 for s in steps], "resets": 0}
    known = {"codebook_size": 64, "tokens_per_step": 256, "dead_code_threshold": 2, "decay": 0.99}
    never = vqlib.diagnose(table, **known)["reset-never-fires"]
    assert "371 steps" in never.cause and "needs 69" not in never.cause
    short = {name: list(values)[:80] for name, values in table.items() if name != "resets"}
    never = vqlib.diagnose(short | {"resets": 0}, **known)["reset-never-fires"]
    assert "needs 69 steps" in never.cause


class ImpatientQuantizer(AveragedQuantizer):
    """It also resets codes whose tally of uses, over all steps so far, is low; it never ends."""

    def __init__(self, counts="embedding_count"):
        super().__init__(names=(None, counts))
        self.register_buffer("uses", torch.zeros(SIZE))
        self.steps = 0

    def forward(self, z):
        output = super().forward(z)
        self.uses += torch.bincount(output[1].flatten(), minlength=SIZE)
        self.steps += 1
        return output

    def reset(self, z):
        dead = self.uses < 0.05 * self.steps
        near = z[torch.randint(len(z), (int(dead.sum()),))]
        self.codebook[dead] = near + torch.randn_like(near)  # so far that nothing chooses it
        self.held[dead], self.uses[dead] = 4.0, 1.0
        self.sums[dead] = self.codebook[dead] * 4


@pytest.mark.parametrize("counts", ["embedding_count", "usage_count", "ema_count"])
def test_where_resets_were_seen_nobody_is_told_to_turn_them_on(counts):
    found = vqlib.diagnose(collapsed(ImpatientQuantizer(counts)))
    assert found["reset-churn"].severity == "critical"
    collapse = found["codebook-collapse"]
    assert collapse.severity == "critical" and "turn on" not in collapse.remedy
    assert "the resets do not keep up" in collapse.cause


class ShrinkingQuantizer(AveragedQuantizer):
    """Starts from the first batch; the sums then hold the codes, the counts their hits."""

    def __init__(self, right):
        super().__init__(threshold=0.0)
        self.right, self.started = right, False

    def forward(self, z):
        if self.training and not self.started:
            tokens = z.reshape(-1, DIM)
            self.codebook.copy_(tokens[:SIZE])
            hits = torch.bincount(torch.cdist(tokens, self.codebook).argmin(-1), minlength=SIZE)
            self.held.copy_(hits)
            self.sums.copy_(self.codebook * (hits[:, None] if self.right else 1))
            self.started = True
        return super().forward(z)

    def reset(self, z):
        pass


@pytest.mark.parametrize(("right", "severity"), [(False, "critical"), (True, "clear")])
def test_codes_that_shrink_at_once_are_a_cold_start(right, severity):
    answer = vqlib.audit(lambda: ShrinkingQuantizer(right), ranks=False)["cold-start"]
    assert answer.severity == severity
    assert right or "shrink" in answer.cause


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("right", [False, True])
def test_a_watch_sees_codes_shrink_in_the_first_step(right, seed):
    torch.manual_seed(seed)
    layer = ShrinkingQuantizer(right)
    with vqlib.watch(layer.train()) as w:
        for _ in range(10):
            layer(torch.randn(4, 200, DIM))
    found = vqlib.diagnose(w)["cold-start"]
    assert (found.severity == "critical") != right
    assert right or "shrink" in found.cause


@pytest.mark.parametrize("decay", [0.5, 0.99])
@pytest.mark.parametrize("settings", [{}, {"kmeans_init": True}, {"use_cosine_sim": True}])
def test_a_watch_takes_no_sound_start_for_shrinking(settings, decay):
    torch.manual_seed(0)
    layers = VectorQuantize(dim=DIM, codebook_size=SIZE, decay=decay, **settings)
    for layer, like in ((layers, (1, 400, DIM)), (vqlib.NormEMAQuantizer(SIZE, DIM), (400, DIM))):
        with vqlib.watch(layer.train()) as w:
            layer(5 * torch.randn(like))
        (known,) = w.settings.values()
        assert known["start_shrunk"] == 0


class KeepingQuantizer(AveragedQuantizer):
    """Keeps the quotient of sums and counts from an evaluation to the next training step."""

    def __init__(self, stale=False):
        super().__init__()
        self.stale, self.kept = stale, None

    def forward(self, z):
        if not self.training and self.kept is None:
            self.kept = self.sums / self.held.clamp(min=1e-6)[:, None]
        if self.training and self.kept is not None:
            self.codebook.copy_(self.kept)
            self.kept = self.kept if self.stale else None
        return super().forward(z)


@pytest.mark.parametrize(("stale", "severity"), [(False, "clear"), (True, "critical")])
def test_a_quotient_that_an_evaluation_keeps_is_no_statistic(stale, severity):
    found = vqlib.audit(lambda: KeepingQuantizer(stale), ranks=False)
    assert found["evaluation-changes-counts"].severity == severity


class SeldomQuantizer(nn.Module):
    """Codes are parameters; every 20 passes those without a hit since then become tokens."""

    def __init__(self):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(SIZE, DIM))
        self.reset_interval, self.passes = 20, 0
        self.register_buffer("tally", torch.zeros(SIZE))

    def forward(self, z):
        flat = z.reshape(-1, DIM)
        indices = torch.cdist(flat, self.codebook).argmin(-1)
        quantized = self.codebook[indices].view_as(z)
        if self.training:
            self.passes += 1
            self.tally += torch.bincount(indices, minlength=SIZE)
            if self.passes % self.reset_interval == 0:
                dead = self.tally == 0
                self.codebook.data[dead] = flat[torch.randint(len(flat), (int(dead.sum()),))]
                self.tally.zero_()
        return quantized, indices.view(z.shape[:-1]), F.mse_loss(z, quantized)


def test_a_reset_is_waited_for_in_a_layer_that_nothing_else_moves():
    found = vqlib.audit(SeldomQuantizer, ranks=False)
    assert found["reset-never-fires"].severity == "clear"
    assert found["reset-does-not-survive"].severity != "not applicable"


class NormedQuantizer(AveragedQuantizer):
    """With an old weight_norm, whose weight is computed anew at each call and is no leaf."""

    def __init__(self):
        super().__init__()
        self.project = nn.utils.weight_norm(nn.Linear(DIM, DIM))

    def forward(self, z):
        return super().forward(self.project(z).detach())


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_a_layer_with_weight_norm_can_be_copied():
    layer = NormedQuantizer()
    assert vqlib.audit(layer, ranks=False).answers
    assert layer.project.weight.grad_fn is not None  # it is as it was


@pytest.mark.parametrize("trained", [False, True])
def test_an_optimizer_is_named_only_for_a_layer_with_parameters(trained):
    class FixedQuantizer(SeldomQuantizer):
        def __init__(self):
            super().__init__()
            self.reset_interval = 10**9
            self.codebook.requires_grad_(trained)

    cause = vqlib.audit(FixedQuantizer, ranks=False)["cold-start"].cause
    assert ("an optimizer may" in cause) == trained


class AnchoringQuantizer(nn.Module):
    """A code that was hardly ever chosen moves to the input nearest to it; ``keeps``: who that is.

    The share of the tokens that each code took falls so slowly that no audit waits for it.
    """

    def __init__(self, keeps=True):
        super().__init__()
        self.keeps, self.embedding = keeps, nn.Embedding(SIZE, DIM)
        self.register_buffer("embed_prob", torch.full((SIZE,), 1 / SIZE))

    @torch.no_grad()
    def forward(self, z):
        distance = torch.cdist(z.reshape(-1, DIM), self.embedding.weight)
        indices = distance.argmin(-1)
        quantized = self.embedding(indices)
        if self.training:
            share = torch.bincount(indices, minlength=SIZE) / len(indices)
            rare = (self.embed_prob < 0.01 / SIZE) | (share > 0)
            anchors = z.reshape(-1, DIM)[distance.argmin(0)]
            self.embedding.weight.lerp_(anchors, 0.1 * rare[:, None])
            if self.keeps:
                self.embed_prob.lerp_(share, 0.001)
        return quantized.view_as(z), indices.view(z.shape[:-1]), quantized.sum() * 0


def test_a_layer_that_keeps_a_number_for_each_code_is_not_healthy_if_no_reset_was_seen():
    found = vqlib.audit(AnchoringQuantizer, ranks=False)
    answer = found["reset-never-fires"]
    assert answer.severity == "unknown" and "`embed_prob`" in answer.cause
    assert found.verdict == "undecided"
    # a buffer that training leaves alone counts nothing
    rest = vqlib.audit(lambda: AnchoringQuantizer(keeps=False), ranks=False)
    assert rest["reset-never-fires"].severity == "not applicable"


class SharesQuantizer(nn.Module):
    """Gradients move its codes; one whose share of the tokens has fallen goes to an input."""

    def __init__(self, resets=True):
        super().__init__()
        self.resets, self.codebook = resets, nn.Parameter(torch.randn(SIZE, DIM))
        self.register_buffer("usage_ema", torch.full((SIZE,), 1 / SIZE))

    @torch.no_grad()
    def forward(self, z):
        tokens = z.reshape(-1, DIM)
        indices = torch.cdist(tokens, self.codebook).argmin(-1)
        quantized = self.codebook[indices]
        if self.training:
            share = torch.bincount(indices, minlength=SIZE) / len(indices)
            self.usage_ema.lerp_(share, 0.02)
            dead = (self.usage_ema < 0.1 / SIZE).nonzero().flatten()
            if self.resets and len(dead):
                donors = torch.randint(len(tokens), (len(dead),))
                self.codebook[dead] = tokens[donors]
                self.usage_ema[dead] = 1 / SIZE
        return quantized.view_as(z), indices.view(z.shape[:-1]), quantized.sum() * 0


@pytest.mark.parametrize("seed", range(3))
def test_a_reset_that_waits_for_a_share_to_fall_is_waited_for_and_examined(seed):
    found = vqlib.audit(SharesQuantizer, ranks=False, seed=seed)
    assert found["reset-never-fires"].severity == "clear"
    assert found["reset-does-not-survive"].severity == "clear"
    unseen = vqlib.audit(lambda: SharesQuantizer(resets=False), ranks=False, seed=seed)
    assert unseen["reset-never-fires"].severity == "unknown" and unseen.verdict == "undecided"
    assert "`usage_ema`" in unseen["reset-never-fires"].cause


class GreedyQuantizer(AveragedQuantizer):
    """It draws a donor for each code, and so takes no step with fewer tokens than codes."""

    def forward(self, z):
        if self.training and z.numel() // DIM < SIZE:
            raise RuntimeError("too few tokens to draw donors from")
        return super().forward(z)


def test_a_question_with_fewer_tokens_than_the_layer_takes_costs_no_other_answer():
    found = vqlib.audit(GreedyQuantizer, ranks=False)
    unknown = {a.id: a.cause for a in found.answers if a.severity == "unknown"}
    rejected = [name for name, cause in unknown.items() if "too few tokens" in cause]
    assert rejected and found["reset-never-fires"].severity == "clear"


class LearntQuantizer(nn.Module):
    """A codebook that an optimizer moves; it has room for as many tokens as it has codes."""

    def __init__(self):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(SIZE, DIM))

    def forward(self, z):
        if z.numel() // DIM > SIZE:
            raise RuntimeError("too many tokens")
        indices = torch.cdist(z.reshape(-1, DIM), self.codebook).argmin(-1)
        quantized = self.codebook[indices].view_as(z)
        return quantized, indices.view(z.shape[:-1]), F.mse_loss(quantized, z.detach())


def test_nor_one_with_more_of_a_codebook_that_no_forward_moves():
    found = vqlib.audit(LearntQuantizer, ranks=False, tokens=SIZE)
    unknown = {a.id: a.cause for a in found.answers if a.severity == "unknown"}
    assert "too many tokens" in unknown["loss-hides-collapse"]
    assert found["reset-never-fires"].severity == "not applicable"


class TrainersQuantizer(LearntQuantizer):
    """Its counts are no buffer, and the trainer replaces by them what was not used."""

    def __init__(self):
        super().__init__()
        self.used = torch.zeros(SIZE, dtype=torch.int32)

    def forward(self, z):
        quantized, indices, loss = super().forward(z)
        self.used[indices.unique()] += 1
        return quantized, indices, loss


def test_counts_that_are_no_buffer_are_counts():
    found = vqlib.audit(TrainersQuantizer, ranks=False, tokens=SIZE)
    assert found["reset-never-fires"].severity == "unknown" and found.verdict == "undecided"
    assert "`used`" in found["reset-never-fires"].cause
