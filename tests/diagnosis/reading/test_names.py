"""Names of columns: what people write is understood, and what means something else is not."""

import pytest

from vqlib.diagnosis.reading.names import meaning

UNDERSTOOD = {
    "step": "step; global_step; trainer/global_step; iteration; n_iter; Step",
    "used_codes": "used_codes; n_used_codes; num_active; vq/unique_codes; codes_in_use; used; "
    "codebook_active; unique_tokens; eval/used_codes",
    "unused_codes": "train_Unused_code; dead_codes; n_dead; zero_entries; num_unused_codes",
    "unused_share": "dead_ratio; dead_code_fraction; unused_code_ratio",
    "utilization": "usage; codebook_usage; Codebook/usage; trainCodebookUsage; vq_util; coverage; "
    "codebook_used_ratio; active_code_ratio; code_usage_fraction; run-1 - train/codebook_usage; "
    "codebook utilisation",
    "perplexity": "perplexity; val_ppl; VQ/Perplexity; codebook_perplexity; avg_perplexity",
    "entropy": "codebook_entropy; token_entropy",
    "entropy_bits": "codebook_entropy_bits",
    "resets": "resets; n_replaced; dead_codes_replaced; expired_codes; revived",
    "recon_loss": "rec_loss; loss/recon; reconstruction_error",
}


@pytest.mark.parametrize(
    ("name", "quantity"),
    [(name.strip(), q) for q, names in UNDERSTOOD.items() for name in names.split(";")],
)
def test_what_people_write_is_understood(name, quantity):
    assert meaning(name).quantity == quantity


FOREIGN = (
    "gpu_usage memory_used cpu/util active_params lm_perplexity it/s time_step tokens_used "
    "token_usage entropy_loss perplexity_loss codes index zero use loss cluster_size dead_neurons "
    "reset_ratio"
)


@pytest.mark.parametrize("name", FOREIGN.split())
def test_what_means_something_else_is_not(name):
    assert meaning(name) is None


@pytest.mark.parametrize(
    ("name", "split", "level"),
    [
        ("val/codebook_usage", "val", None),
        ("codebook_usage/train", "train", None),
        ("test_unused_code", "val", None),
        ("codebook_1/usage", None, "1"),
        ("train/rvq.0.codebook_usage", "train", "0"),
        ("ppl_7", None, "7"),
        ("u3", None, "3"),
        ("codebook_usage_epoch", None, None),
    ],
)
def test_split_and_level_are_told_by_the_name(name, split, level):
    assert (meaning(name).split, meaning(name).level) == (split, level)


def test_per_cent_is_told_by_the_name():
    assert meaning("usage (%)").per_cent and meaning("active_codes_pct").per_cent
    assert not meaning("usage").per_cent
