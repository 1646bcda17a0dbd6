"""Eq. 4 and Eq. 7 against naive loops in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpm_plugin import DPMError, MaskedArcFace
from dpm_plugin.method.masked_cosine import MASK_VARIANTS, masked_cosine


def unit(row):
    return row / row.norm()


def naive_cosine(x, w, mask, variant, renormalise):
    """One pair at a time, by the words of Table 5."""
    x, w, mask = x.double(), w.double(), mask.double()
    out = torch.zeros(len(x), len(w), dtype=torch.float64)
    for i in range(len(x)):
        for j in range(len(w)):
            feature, prototype, m = x[i], w[j], mask[i]
            if variant in ("P", "P+F"):  # mask, then L2
                prototype = unit(m * prototype)
                feature = unit(m * feature) if variant == "P+F" else unit(feature)
            else:  # L2, then mask
                prototype = m * unit(prototype)
                feature = m * unit(feature) if variant == "Pn+Fn" else unit(feature)
                if renormalise:
                    prototype, feature = unit(prototype), unit(feature)
            out[i, j] = feature @ prototype
    return out


def naive_arcface(x, w, mask, labels, scale, margin):
    cosine = naive_cosine(x, w, mask, "Pn", True)
    for i, y in enumerate(labels.tolist()):
        c = cosine[i, y].clamp(-1, 1)
        theta = math.acos(c)
        cosine[i, y] = math.cos(theta + margin) if theta + margin < math.pi else c - margin * math.sin(margin)
    return scale * cosine


def random_case(seed, batch, classes, dim):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, dim, generator=generator)
    w = torch.randn(classes, dim, generator=generator)
    mask = torch.rand(batch, dim, generator=generator) * 0.98 + 0.01
    labels = torch.randint(classes, (batch,), generator=generator)
    return x, w, mask, labels


shapes = dict(seed=st.integers(0, 10_000), batch=st.integers(1, 5), classes=st.integers(1, 7), dim=st.integers(2, 33))


@settings(max_examples=30, deadline=None)
@given(variant=st.sampled_from(MASK_VARIANTS), renormalise=st.booleans(), **shapes)
def test_masked_cosine_equals_the_naive_loop_in_every_variant(variant, renormalise, seed, batch, classes, dim):
    x, w, mask, _ = random_case(seed, batch, classes, dim)
    expected = naive_cosine(x, w, mask, variant, renormalise)
    got = masked_cosine(x, w, mask, variant, renormalise)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(margin=st.floats(0, 1.5), scale=st.floats(1, 64), **shapes)
def test_masked_arcface_equals_the_naive_loop(margin, scale, seed, batch, classes, dim):
    x, w, mask, labels = random_case(seed, batch, classes, dim)
    expected = naive_arcface(x, w, mask, labels, scale, margin)
    got = MaskedArcFace(scale, margin)(x, w, mask, labels)
    # the margin's slope is steep next to cos = +-1, where float32 knows the angle to 1e-3 only
    near_pole = naive_cosine(x, w, mask, "Pn", True).abs().gather(1, labels[:, None]) > 0.9999
    tolerance = torch.where(near_pole, 2e-2, 2e-4) * scale
    assert ((got.double() - expected).abs() <= tolerance).all()


@settings(max_examples=20, deadline=None)
@given(**shapes)
def test_gradients_equal_those_of_the_naive_loop(seed, batch, classes, dim):
    case = random_case(seed, batch, classes, dim)
    labels = case[3]
    fast = [t.clone().requires_grad_() for t in case[:3]]
    slow = [t.double().requires_grad_() for t in case[:3]]
    MaskedArcFace(margin=0.0)(*fast, labels).square().sum().backward()
    (30.0 * naive_cosine(*slow, "Pn", True)).square().sum().backward()
    for a, b in zip(fast, slow):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-3, atol=1e-3 * b.grad.abs().max().item() + 1e-6)


def test_renormalised_variants_do_not_see_whether_the_mask_came_before_or_after_l2():
    x, w, mask, _ = random_case(0, 4, 6, 16)
    for after, before in (("Pn", "P"), ("Pn+Fn", "P+F")):
        torch.testing.assert_close(masked_cosine(x, w, mask, after), masked_cosine(x, w, mask, before))
        raw = masked_cosine(x, w, mask, after, renormalise=False)
        assert (raw - masked_cosine(x, w, mask, before)).abs().max() > 0.01


def test_no_mask_and_a_constant_mask_are_the_plain_cosine():
    x, w, mask, _ = random_case(1, 4, 6, 16)
    plain = torch.cosine_similarity(x[:, None], w[None], dim=-1)
    torch.testing.assert_close(masked_cosine(x, w), plain)
    torch.testing.assert_close(masked_cosine(x, w, torch.full_like(mask, 0.3)), plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_gives_finite_logits_and_gradients_even_for_perfect_matches(dtype):
    w = torch.randn(5, 32)
    x = (100 * w[[0, 1, 2, 0]]).to(dtype).requires_grad_()  # cosine 1 up to rounding, and -1 below
    prototypes = torch.cat([w, -w]).to(dtype).requires_grad_()
    mask = torch.full((4, 32), 0.5, dtype=dtype, requires_grad=True)
    labels = torch.tensor([0, 1, 7, 5])
    loss = torch.nn.functional.cross_entropy(MaskedArcFace()(x, prototypes, mask, labels), labels)
    loss.backward()
    assert loss.isfinite() and loss.dtype == torch.float32
    assert all(t.grad.isfinite().all() for t in (x, prototypes, mask))


def test_zero_masks_and_zero_features_give_no_nan():
    x, w, mask, labels = random_case(2, 3, 4, 8)
    x[0], mask[1] = 0, 0
    x.requires_grad_(), mask.requires_grad_()
    logits = MaskedArcFace()(x, w, mask, labels)
    logits.sum().backward()
    assert logits.isfinite().all() and x.grad.isfinite().all() and mask.grad.isfinite().all()


@pytest.mark.parametrize("variant", MASK_VARIANTS)
@pytest.mark.parametrize("zero", [0, 1, 2], ids=["feature", "prototype", "mask"])
def test_an_exactly_zero_row_has_no_gradient_and_gives_none(variant, zero):
    case = [rows.clone() for rows in random_case(3, 3, 3, 8)[:3]]  # features, prototypes, mask
    case[zero][1] = 0
    for rows in case:
        rows.requires_grad_()
    masked_cosine(*case, variant).sum().backward()
    assert not case[zero].grad[1].any()
    assert all(rows.grad.abs().max() < 10 for rows in case)


def test_wrong_choices_name_the_right_ones():
    with pytest.raises(DPMError, match="Pn, Pn\\+Fn, P, P\\+F"):
        MaskedArcFace(variant="after")
    with pytest.raises(DPMError, match="margin"):
        MaskedArcFace(margin=4.0)
