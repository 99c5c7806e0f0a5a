"""vqlib.audit on layers of other packages, as they come from the registry.

Each expectation was confirmed by hand in the layer itself.
"""

import pytest
from vector_quantize_pytorch import VectorQuantize

import vqlib
from tests.diagnosis.audit.audited_libraries import DIM, PEERS

AUDITS = {}


def audit(name):
    if name not in AUDITS:
        factory, adapter = PEERS[name]
        AUDITS[name] = vqlib.audit(factory, adapter=adapter, dim=DIM, ranks=False)
    return AUDITS[name]


def number(finding, name):
    return [e.value for e in finding.evidence if e.name == name][-1]


@pytest.mark.parametrize("name", PEERS)
def test_no_peer_is_accused_of_anything_grave(name):
    assert audit(name).ids("critical", "warning") == set()
    assert audit(name)["evaluation-changes-counts"].severity in ("clear", "note")
    assert audit(name)["not-reproducible"].severity == "clear"


def test_heads_that_share_a_codebook():
    vq = {"dim": 16, "codebook_size": 32, "heads": 2, "codebook_dim": 8}
    found = vqlib.audit(
        lambda: VectorQuantize(**vq, threshold_ema_dead_code=2), dim=16, ranks=False
    )
    assert found.ids("critical", "warning") == set()
    assert found["duplicate-codes"].severity == "clear"


EXPIRING = [name for name in PEERS if "expiry" in name]


@pytest.mark.parametrize("name", EXPIRING)
def test_an_expired_code_has_one_step_as_its_count_is_refilled_to_the_threshold(name):
    answer = audit(name)["reset-does-not-survive"]
    assert answer.severity == "note"
    assert number(answer, "steps until reset again without a hit") == 1
    assert number(answer, "of these not left in place") == 0
    assert "5 steps at decay 0.8" in answer.remedy


def test_the_expiry_is_off_by_default():
    answer = audit("VectorQuantize")["reset-never-fires"]
    assert answer.severity == "note" and number(answer, "codes put elsewhere") == 0
    assert audit("VectorQuantize, expiry 2")["reset-never-fires"].severity == "clear"


def test_kmeans_also_starts_from_an_evaluation_batch():
    answer = audit("VectorQuantize, k-means, expiry 2")["evaluation-changes-counts"]
    assert (
        answer.severity == "note" and answer.evidence[-1].name == "before the first training step"
    )
    assert audit("VectorQuantize, expiry 2")["evaluation-changes-counts"].severity == "clear"


def test_counts_that_start_at_one_cost_random_codes_and_no_others():
    random = audit("VectorQuantize, cosine, expiry 2")["cold-start"]
    assert random.severity == "note" and "random" in random.cause
    assert number(random, "of these thrown away") > 0
    assert audit("VectorQuantize, k-means, expiry 2")["cold-start"].severity == "clear"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("FSQ", "holds no codebook"),
        ("SimVQ", "an optimizer may"),
        ("diffusers", "an optimizer may"),
        ("transformers", "an optimizer may"),
    ],
)
def test_without_an_average_resets_are_not_applicable(name, why):
    for question in ("cold-start", "reset-never-fires", "threshold-above-share"):
        assert audit(name)[question].severity == "not applicable"
        assert why in audit(name)[question].cause
