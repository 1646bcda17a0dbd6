"""Eq. 5 and 6 against a naive loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpm_plugin import DPMError, HeadEnrichLoss


def naive(logits, head_input, reduction):
    total = 0.0
    for image in logits.double():
        rows = []
        for head in image:
            values = [math.exp(v) for v in head.tolist()] if head_input == "attention" else head.tolist()
            length = math.sqrt(sum(v * v for v in values))
            rows.append([v / length for v in values])
        for i, a in enumerate(rows):
            for j, b in enumerate(rows):
                total += (sum(p * q for p, q in zip(a, b)) - (i == j)) ** 2
    return total / (len(logits) if reduction == "mean" else logits.shape[1] ** 2)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 4),
    heads=st.integers(1, 6),
    patches=st.integers(1, 20),
    head_input=st.sampled_from(["attention", "logits"]),
    reduction=st.sampled_from(["mean", "released"]),
)
def test_loss_equals_the_naive_loop(seed, batch, heads, patches, head_input, reduction):
    logits = torch.randn(batch, heads, patches, generator=torch.Generator().manual_seed(seed))
    got = HeadEnrichLoss(head_input, reduction)(logits)
    assert got.item() == pytest.approx(naive(logits, head_input, reduction), rel=1e-4, abs=1e-5)


def test_loss_is_zero_for_heads_on_different_patches_and_largest_for_equal_heads():
    different = torch.full((1, 3, 3), -50.0)
    different[0].fill_diagonal_(50.0)
    assert HeadEnrichLoss()(different).item() == pytest.approx(0, abs=1e-6)
    assert HeadEnrichLoss()(torch.zeros(1, 3, 5)).item() == pytest.approx(3 * 2)  # N (N - 1)


def test_half_precision_logits_do_not_overflow():
    logits = (300 * torch.randn(2, 3, 7)).half().requires_grad_()
    for head_input in ("attention", "logits"):
        loss = HeadEnrichLoss(head_input)(logits)
        loss.backward()
        assert loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("head_input", ["attention", "logits"])
def test_under_autocast_the_loss_is_computed_in_float32(head_input):
    logits = torch.randn(4, 6, 50, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = HeadEnrichLoss(head_input)(logits)
    assert torch.equal(found, HeadEnrichLoss(head_input)(logits))


def test_wrong_choices_name_the_right_ones():
    with pytest.raises(DPMError, match="'attention' or 'logits'"):
        HeadEnrichLoss("softmax")
    with pytest.raises(DPMError, match="'mean' or 'released'"):
        HeadEnrichLoss(reduction="sum")
