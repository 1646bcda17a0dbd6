"""Masked ArcFace and masked distances against float64 loops, wherever numbers are tiny, huge or half as precise."""

import math

import numpy as np
import torch
from hypothesis import strategies as st

from dpm_plugin import MaskedArcFace, evaluate_rank
from dpm_plugin.evaluation.search import topk
from dpm_plugin.method.masked_cosine import masked_cosine
from dpm_plugin.method.retrieval import cosine_distance, mutual_mask_distance, query_mask_distance
from helpers.fuzz import Refused, fuzz, outcome, sizes  # noqa: F401, a fixture
from helpers.loops import loop_cosine

FLOAT32_MAX, SMALLEST = 3.4e38, 1.4e-45  # the smallest is denormal
MAGNITUDES = [0.0, SMALLEST, 1e-40, 1e-30, 1e-12, 1e-6, 1.0, 1e6, 1e19, 1e30, FLOAT32_MAX]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@st.composite
def rows(draw, count, width, magnitudes=tuple(MAGNITUDES), low=-1.0):
    """(count, width) finite numbers, each row of its own magnitude, some of them with channels of zero."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    values = low + (1 - low) * torch.rand(count, width, generator=generator, dtype=torch.float64)
    scale = torch.tensor(draw(st.lists(st.sampled_from(magnitudes), min_size=count, max_size=count)))
    if draw(st.booleans()):
        values *= torch.rand(count, width, generator=generator) > 0.3
    values = values * scale.double()[:, None]
    dtype = draw(st.sampled_from(DTYPES))
    return values.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)


@st.composite
def retrieval(draw):
    width = draw(st.integers(1, 33))
    queries, images = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    masks = [draw(rows(count, width, low=0.0)) for count in (queries, images)]
    return draw(rows(queries, width)), draw(rows(images, width)), *masks, draw(st.integers(1, 6))


@st.composite
def heads(draw):
    width, batch, classes = draw(st.integers(1, 33)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=batch, max_size=batch))
    return (
        draw(rows(batch, width)),
        draw(rows(classes, width)),
        draw(rows(batch, width, low=0.0)),
        torch.tensor(labels),
        draw(st.sampled_from(["Pn", "Pn+Fn", "P", "P+F"])),
        draw(st.floats(0, 1.5)),
    )


@sizes(30, 1000)
def test_masked_distances_are_those_of_a_float64_loop_for_every_finite_input(fuzz):  # noqa: F811
    def check(case):
        query, gallery, query_mask, _, chunk = case
        for found, mask in (
            (query_mask_distance(query, gallery, query_mask, chunk_size=chunk), query_mask),
            (cosine_distance(query, gallery, chunk_size=chunk), None),
        ):
            assert found.dtype == torch.float32 and found.shape == (len(query), len(gallery))
            np.testing.assert_allclose(found.numpy(), 1 - loop_cosine(query, gallery, mask), rtol=0, atol=3e-6)

    fuzz(retrieval(), check)


@sizes(15, 300)
def test_mutual_distances_and_the_nearest_images_are_never_nan(fuzz):  # noqa: F811
    def check(case):
        query, gallery, query_mask, gallery_mask, chunk = case
        mutual = mutual_mask_distance(query, gallery, query_mask, gallery_mask, chunk_size=chunk)
        assert mutual.isfinite().all() and (mutual >= 0).all() and (mutual <= 2).all()
        k = min(chunk, len(gallery))
        nearest, indices = topk(query, gallery, query_mask, k, chunk_size=chunk)
        every = query_mask_distance(query, gallery, query_mask)
        torch.testing.assert_close(nearest, every.sort(dim=1, stable=True).values[:, :k], atol=3e-6, rtol=0)
        torch.testing.assert_close(nearest, every.gather(1, indices), atol=3e-6, rtol=0)

    fuzz(retrieval(), check)


@sizes(30, 1000)
def test_masked_cosines_are_those_of_a_float64_loop_for_every_finite_input(fuzz):  # noqa: F811
    def check(case):
        x, w, mask, _, variant, _ = case
        seen = x.double() * mask.double() if variant in ("Pn+Fn", "P+F") else x
        found = masked_cosine(x, w, mask, variant)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), loop_cosine(seen, w, mask), rtol=0, atol=3e-6)
        np.testing.assert_allclose(masked_cosine(x, w).numpy(), loop_cosine(x, w), rtol=0, atol=3e-6)

    fuzz(heads(), check)


@sizes(30, 1000)
def test_masked_arcface_is_that_of_a_float64_loop_and_its_loss_is_finite(fuzz):  # noqa: F811
    def check(case):
        x, w, mask, labels, _, margin = case
        found = MaskedArcFace(30.0, margin)(x, w, mask, labels)
        expected = loop_cosine(x, w, mask)
        tolerance = np.full(expected.shape, 3e-6)
        for i, label in enumerate(labels.tolist()):
            cosine = min(1.0, max(-1.0, expected[i, label]))
            theta = math.acos(cosine)
            expected[i, label] = (
                math.cos(theta + margin) if theta + margin < math.pi else cosine - margin * math.sin(margin)
            )
            # Beside the poles and where the formula changes float32 knows the angle to the root of its rounding.
            if abs(cosine) > 0.999 or abs(theta + margin - math.pi) < 1e-3:
                tolerance[i, label] = 5e-3
            else:
                tolerance[i, label] = 2e-4
        assert (np.abs(found.numpy() / 30 - expected) <= tolerance).all()
        assert torch.nn.functional.cross_entropy(found, labels).isfinite()

    fuzz(heads(), check)


@st.composite
def any_rows(draw):
    """What a caller may pass by mistake: any shape and type, with and without NaN and infinity."""
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64]))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    if values.numel():
        values.flatten()[0] = draw(st.sampled_from([0.0, 1.0, float("nan"), float("inf")]))
    return values.to(dtype)


@sizes(40, 1000)
def test_inputs_that_do_not_fit_are_refused_in_words(fuzz):  # noqa: F811
    def check(case):
        query, gallery, mask, k = case
        found = outcome(query_mask_distance, query, gallery, mask)
        if isinstance(found, torch.Tensor):
            assert found.shape == (len(query), len(gallery)) and found.dtype == torch.float32
            finite = all(value is None or value.float().isfinite().all() for value in case[:3])
            assert found.isfinite().all() or not finite
        nearest = outcome(topk, query, gallery, mask, k)
        assert isinstance(nearest, Refused) or nearest[0].isfinite().all()
        distances = query.float().numpy() if not query.is_complex() else np.zeros((2, 2))
        pids = [1] * len(distances) if distances.ndim else [1]
        found = outcome(evaluate_rank, distances, pids, [1, 1], [1] * len(pids), [2, 3])
        assert isinstance(found, Refused) or 0 <= found[1] <= 1

    fuzz(st.tuples(any_rows(), any_rows(), st.none() | any_rows(), st.integers(-1, 4)), check)
