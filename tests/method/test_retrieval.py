"""Retrieval distances against loops over pairs in float64 and the released implementation's numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpm_plugin.method.retrieval import cosine_distance, mutual_mask_distance, query_mask_distance, shuffled_masks
from dpm_plugin.utils.errors import DPMError
from helpers.loops import loop_cosine

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden" / "retrieval.npz"
DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


@st.composite
def cases(draw):
    count_q, count_g, width = draw(st.integers(1, 7)), draw(st.integers(1, 9)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    dtype = draw(DTYPES)
    scale = draw(st.sampled_from([1e-2, 1.0, 1e2]))
    sizes = ((count_q, width), (count_g, width))
    features = [(torch.randn(size, generator=generator) * scale).to(dtype) for size in sizes]
    masks = [(0.05 + 0.9 * torch.rand(size, generator=generator)).to(dtype) for size in sizes]
    return (*features, *masks, draw(st.integers(1, 10)))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_distance_equals_the_loop_over_pairs_for_any_chunking(case):
    query, gallery, query_mask, gallery_mask, chunk = case
    found = {
        "masked": (query_mask_distance(query, gallery, query_mask, chunk_size=chunk), query_mask, None),
        "plain": (cosine_distance(query, gallery, chunk_size=chunk), None, None),
        "mutual": (
            mutual_mask_distance(query, gallery, query_mask, gallery_mask, chunk_size=chunk),
            query_mask,
            gallery_mask,
        ),
    }
    for name, (distance, *masks) in found.items():
        assert distance.dtype == torch.float32 and distance.shape == (len(query), len(gallery))
        expected = 1 - loop_cosine(query, gallery, *masks)
        np.testing.assert_allclose(distance.numpy(), expected, rtol=0, atol=2e-6, err_msg=name)


def test_masked_distance_equals_the_released_implementation():
    golden = np.load(GOLDEN, allow_pickle=False)
    query, gallery, mask = (torch.from_numpy(golden[name]) for name in ("qf", "gf", "qm"))
    cosine = 1 - query_mask_distance(query, gallery, mask)
    angle = torch.arccos(cosine.clamp(-1 + 1e-5, 1 - 1e-5))
    np.testing.assert_allclose(angle.numpy(), golden["dist"], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_zero_rows_and_zero_masks_have_distance_one_to_everything(dtype):
    query, gallery, mask = (torch.rand(rows, 8).to(dtype) for rows in (3, 4, 3))
    query[0], gallery[1], mask[2] = 0, 0, 0
    distance = query_mask_distance(query, gallery, mask)
    assert torch.isfinite(distance).all()
    for rows in (distance[0], distance[:, 1], distance[2]):
        assert torch.equal(rows, torch.ones_like(rows))
    assert (distance[1, [0, 2, 3]] < 0.9).all()


def test_magnitudes_whose_squares_leave_float32_change_nothing():
    query, gallery, mask = torch.randn(3, 8), torch.randn(4, 8), torch.rand(3, 8)
    expected = query_mask_distance(query, gallery, mask)
    for scale in (1e-30, 1e30):
        for found in (
            query_mask_distance(query * scale, gallery * scale, mask),
            query_mask_distance(query, gallery, mask * scale),
        ):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_largest_half_precision_values_stay_finite():
    rows = torch.full((2, 64), torch.finfo(torch.float16).max, dtype=torch.float16)
    torch.testing.assert_close(query_mask_distance(rows, rows, rows), torch.zeros(2, 2), atol=1e-6, rtol=0)


def test_autocast_does_not_lower_the_precision():
    query, gallery, mask = torch.randn(5, 32), torch.randn(6, 32), torch.rand(5, 32)
    expected = query_mask_distance(query, gallery, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(query_mask_distance(query, gallery, mask), expected)


def test_nan_features_are_not_turned_into_a_distance():
    query = torch.randn(2, 4)
    query[1, 2] = float("nan")
    distance = query_mask_distance(query, torch.randn(3, 4), torch.rand(2, 4))
    assert torch.isfinite(distance[0]).all() and torch.isnan(distance[1]).all()


def test_result_carries_no_graph():
    query = torch.randn(2, 4, requires_grad=True)
    assert not query_mask_distance(query, torch.randn(3, 4), None).requires_grad


def test_mutual_distance_is_symmetric_and_zero_between_a_row_and_itself():
    rows, masks = torch.randn(9, 16), torch.rand(9, 16)
    distance = mutual_mask_distance(rows, rows, masks, masks)
    torch.testing.assert_close(distance, distance.T)
    torch.testing.assert_close(distance.diagonal(), torch.zeros(9), atol=1e-6, rtol=0)


def test_mutual_distance_without_gallery_masks_is_the_query_mask_distance():
    query, gallery, mask = torch.randn(3, 8), torch.randn(4, 8), torch.rand(3, 8)
    expected = query_mask_distance(query, gallery, mask)
    torch.testing.assert_close(mutual_mask_distance(query, gallery, mask, torch.ones(4, 8)), expected)
    assert torch.equal(mutual_mask_distance(query, gallery, mask, None), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 50), st.integers(0, 2**32))
def test_shuffled_masks_keep_all_rows_and_none_in_its_place(count, seed):
    mask = torch.arange(count).float()[:, None].expand(count, 3)
    shuffled = shuffled_masks(mask, seed)
    assert torch.equal(shuffled.sort(dim=0).values, mask)
    assert (shuffled != mask).all()
    assert torch.equal(shuffled, shuffled_masks(mask, seed))


def test_shuffled_masks_leave_global_random_states_alone():
    mask = torch.rand(5, 2)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    shuffled_masks(mask, seed=1)
    assert torch.equal(states[0], torch.get_rng_state()) and (states[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize(
    "query, gallery, mask, named",
    [
        ((2, 4), (3, 5), (2, 4), ["query (2, 4)", "gallery (3, 5)"]),
        ((2, 4), (3, 4), (3, 4), ["query (2, 4)", "query_mask (3, 4)"]),
        ((2, 4), (3, 4), (2, 1), ["query_mask (2, 1)"]),
        ((4,), (3, 4), None, ["query (4,)"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(query, gallery, mask, named):
    with pytest.raises(DPMError) as error:
        query_mask_distance(torch.rand(query), torch.rand(gallery), mask and torch.rand(mask))
    assert all(text in str(error.value) for text in named)


def test_numpy_input_is_refused_with_the_way_out():
    with pytest.raises(DPMError, match="gallery must be a torch tensor, got ndarray; use torch.from_numpy"):
        query_mask_distance(torch.rand(2, 4), np.zeros((2, 4)), None)


def test_one_row_cannot_be_shuffled():
    with pytest.raises(DPMError, match="Q >= 2"):
        shuffled_masks(torch.rand(1, 4))
