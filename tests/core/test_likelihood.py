"""Pure tensor functions against plain loops, and the identities they must keep."""

import math

import pytest
import torch

from unlearnkit.core.likelihood import count_labels, row_nll, shifted, token_jsd, token_kl, token_nll


@pytest.fixture
def example():
    logits = torch.randn(3, 7, 11, dtype=torch.float64)
    labels = torch.randint(0, 11, (3, 7))
    labels[0, :3] = -100
    labels[1, :5] = -100
    labels[2, 4:] = -100
    return logits, labels


def test_token_nll_is_the_plain_loop(example):
    logits, labels = example
    plain = [
        -logits[b, t - 1].log_softmax(-1)[labels[b, t]]
        for b in range(3)
        for t in range(1, 7)
        if labels[b, t] != -100
    ]
    torch.testing.assert_close(token_nll(logits, labels), torch.stack(plain))


def test_row_nll_sums_rows(example):
    logits, labels = example
    counts = count_labels(labels)
    assert counts.tolist() == [4, 2, 3]
    torch.testing.assert_close(
        row_nll(logits, labels),
        torch.stack([c.sum() for c in token_nll(logits, labels).split(counts.tolist())]),
    )


def test_kl_of_a_distribution_with_itself_is_zero_and_never_negative(example):
    logits, labels = example
    assert token_kl(logits, logits).abs().max() < 1e-12
    other = torch.randn_like(logits)
    kl = token_kl(*(shifted(z, labels)[0] for z in (logits, other)))
    assert (kl > 0).all()
    p, q = logits[0, 2].softmax(-1), other[0, 2].softmax(-1)
    torch.testing.assert_close(kl[0], (p * (p / q).log()).sum())


def test_jsd_is_symmetric_zero_on_itself_and_at_most_log_two(example):
    logits, labels = example
    other = 50 * torch.randn_like(logits)
    torch.testing.assert_close(token_jsd(logits, other), token_jsd(other, logits))
    assert token_jsd(logits, logits).abs().max() < 1e-12
    assert token_jsd(50 * logits, other).max() <= math.log(2) + 1e-12


def test_unlabelled_positions_have_no_influence(example):
    logits, labels = example
    changed = logits.clone()
    changed[0, :2] = 100.0
    changed[:, -1] = 7.0
    torch.testing.assert_close(row_nll(changed, labels), row_nll(logits, labels))


def test_half_precision_is_computed_in_float32(example):
    logits, labels = example
    assert token_nll(logits.bfloat16(), labels).dtype == torch.float32
