"""The triplet loss against a naive loop, and Eq. 8 term by term."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from dpm_plugin import DPMError, DPMLoss, HeadEnrichLoss, MaskedArcFace, SoftMarginTripletLoss
from dpm_plugin.method.losses import DPMOutput


def naive_triplet(x, labels, margin):
    total = 0.0
    for i in range(len(x)):
        distances = [(x[i] - x[j]).norm().item() for j in range(len(x))]
        farthest = max(d for j, d in enumerate(distances) if labels[j] == labels[i])
        nearest = min(d for j, d in enumerate(distances) if labels[j] != labels[i])
        gap = farthest - nearest
        total += math.log1p(math.exp(gap)) if margin is None else max(0.0, gap + margin)
    return total / len(x)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), ids=st.integers(2, 4), k=st.integers(1, 3), margin=st.sampled_from([None, 0.3]))
def test_triplet_equals_the_naive_loop(seed, ids, k, margin):
    x = torch.randn(ids * k, 6, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(ids).repeat_interleave(k)
    got = SoftMarginTripletLoss(margin)(x, labels)
    assert got.item() == pytest.approx(naive_triplet(x.double(), labels, margin), rel=1e-4)


def test_triplet_of_equal_features_has_finite_gradients():
    x = torch.ones(4, 3, requires_grad=True)
    SoftMarginTripletLoss()(x, torch.tensor([0, 0, 1, 1])).backward()
    assert x.grad.isfinite().all()


def test_a_batch_of_one_identity_is_an_error_that_names_the_sampler():
    with pytest.raises(DPMError, match="RandomIdentitySampler"):
        SoftMarginTripletLoss()(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))


@pytest.fixture
def case():
    torch.manual_seed(0)
    labels = torch.tensor([0, 0, 3, 3, 5, 5])
    output = DPMOutput(torch.randn(6, 8), torch.randn(6, 8), torch.randn(7, 8), torch.rand(6, 8), torch.randn(6, 3, 10))
    return output, labels


@pytest.mark.parametrize("cls_loss", ["softmax", "margin"])
@pytest.mark.parametrize("mask_loss", ["softmax", "margin"])
def test_total_is_equation_8_for_every_choice_of_table_4(case, cls_loss, mask_loss):
    output, labels = case
    parts = DPMLoss(alpha=0.3, beta=0.2, cls_loss=cls_loss, mask_loss=mask_loss)(output, labels)
    x, w, m = output.embedding, output.prototypes, output.mask
    arcface = MaskedArcFace()
    cls = F.cross_entropy(x @ w.T if cls_loss == "softmax" else arcface(x, w, None, labels), labels)
    per_image = torch.stack([x[i] @ (m[i] * w).T for i in range(len(x))])  # x (m * W)^T, Eq. 4 literally
    masked = F.cross_entropy(per_image if mask_loss == "softmax" else arcface(x, w, m, labels), labels)
    head, triplet = HeadEnrichLoss()(output.head_logits), SoftMarginTripletLoss()(output.cls, labels)
    torch.testing.assert_close(parts.cls, cls)
    torch.testing.assert_close(parts.masked, masked)
    torch.testing.assert_close(parts.total, 0.3 * cls + 0.7 * masked + 0.2 * head + triplet)
    torch.testing.assert_close(parts.logits, x @ w.T)


def test_without_a_mask_the_total_is_the_papers_baseline(case):
    output, labels = case
    parts = DPMLoss()(output._replace(mask=None, head_logits=None), labels)
    expected = F.cross_entropy(output.embedding @ output.prototypes.T, labels)
    torch.testing.assert_close(parts.total, expected + SoftMarginTripletLoss()(output.cls, labels))


def test_wrong_choices_are_named():
    with pytest.raises(DPMError, match="mask_loss 'arcface'"):
        DPMLoss(mask_loss="arcface")
    with pytest.raises(DPMError, match="alpha"):
        DPMLoss(alpha=1.5)
