"""Exact top-k against sorting the whole matrix, for every kind of gallery."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpm_plugin.evaluation.search import Gallery, ranks, topk
from dpm_plugin.method.masked_cosine import unit_rows
from dpm_plugin.method.retrieval import query_mask_distance
from dpm_plugin.utils.errors import DPMError
from experiments.benchmark.timing import take_turns
from experiments.oracles.plain_retrieval import masked_distance, nearest

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
CHUNKS = st.sampled_from([1, 7, 64, 128, 1000, None])  # whole parts of a block's row, or one part


def draw(query=5, gallery=40, dim=16, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(count, dim, generator=generator).to(dtype) for count in (query, gallery)]
    return (*rows, (0.05 + 0.9 * torch.rand(query, dim, generator=generator)).to(dtype))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 300),
    st.integers(1, 24),
    st.sampled_from(DTYPES),
    CHUNKS,
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_the_nearest_are_those_of_the_loop_over_queries_in_float64(
    count_q, count_g, dim, dtype, chunk_size, masked, prepared, data
):
    query, gallery, mask = draw(count_q, count_g, dim, data.draw(st.integers(0, 10**6)), dtype)
    k = data.draw(st.integers(1, count_g))
    searched = Gallery(unit_rows(gallery), unit=True) if prepared else gallery
    distances, indices = topk(query, searched, mask if masked else None, k, chunk_size=chunk_size)
    mask = mask.double() if masked else torch.ones(count_q, dim)
    all_distances = masked_distance(query.double(), gallery.double(), mask)
    expected, _ = nearest(all_distances, k)
    assert distances.dtype == torch.float32 and indices.dtype == torch.int64
    np.testing.assert_allclose(distances, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(all_distances.gather(1, indices), expected, rtol=0, atol=2e-6)
    assert all(len(set(row)) == k for row in indices.tolist())


def exact_case(count_q, count_g, dim, seed):
    """Features whose products are exact in any order: each gallery row has one channel, masks are powers of two."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(count_q, dim, generator=generator)
    channels = torch.randint(dim, (count_g,), generator=generator)
    mask = 0.5 ** torch.randint(3, (count_q, dim), generator=generator)
    return query, torch.eye(dim)[channels], mask


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 400), st.integers(1, 5), CHUNKS, st.data())
def test_equals_the_stable_sort_of_the_matrix_with_ties_in_gallery_order(count_q, count_g, dim, chunk_size, data):
    case = exact_case(count_q, count_g, dim, data.draw(st.integers(0, 10**6)))
    k = data.draw(st.integers(1, count_g))
    distances, indices = topk(*case, k, chunk_size=chunk_size)
    expected = nearest(query_mask_distance(*case), k)
    assert torch.equal(distances, expected[0]) and torch.equal(indices, expected[1])


# Ranks of chosen images


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 300), st.integers(1, 5), CHUNKS, st.booleans(), st.data())
def test_ranks_are_places_in_the_stable_sort_of_the_matrix(count_q, count_g, dim, chunk_size, masked, data):
    query, gallery, mask = exact_case(count_q, count_g, dim, data.draw(st.integers(0, 10**6)))
    mask = mask if masked else None
    count = data.draw(st.integers(0, 8))  # of chosen images, also the same one twice
    chosen = torch.randint(count_g, (count_q, count), generator=torch.Generator().manual_seed(count))
    order = np.argsort(query_mask_distance(query, gallery, mask).numpy(), axis=1, kind="stable")
    expected = [[int(np.flatnonzero(order[row] == image)[0]) + 1 for image in chosen[row]] for row in range(count_q)]
    assert ranks(query, gallery, mask, chosen, chunk_size=chunk_size).tolist() == expected


@pytest.mark.parametrize("masked", [True, False])
def test_what_was_found_nearest_has_the_ranks_from_1_also_among_copies_of_itself(masked):
    query, gallery, mask = draw(1100, 60, 24)  # more queries than one block holds
    gallery, mask = gallery.repeat(4, 1), mask if masked else None
    _, indices = topk(query, gallery, mask, 9, chunk_size=100)
    found = ranks(query, gallery, mask, indices, chunk_size=100)
    assert torch.equal(found, torch.arange(1, 10).expand(1100, 9))
    assert torch.equal(ranks(query, gallery, mask, indices.flip(1), chunk_size=100), found.flip(1))


@pytest.mark.parametrize(
    "chosen, said",
    [
        (torch.zeros(4, 2, dtype=torch.int64), r"of 5 queries, got \(4, 2\)"),
        (torch.zeros(5, 2), "integers"),
        (torch.full((5, 1), 40), "between 0 and 39, got 40"),
        (torch.full((5, 1), -1), "got -1"),
    ],
)
def test_images_that_are_not_in_the_gallery_have_no_rank(chosen, said):
    with pytest.raises(DPMError, match=said):
        ranks(*draw(), chosen)


@pytest.mark.parametrize("order", [False, True])
def test_a_gallery_sorted_by_distance_either_way_changes_nothing(order):
    query, gallery, mask = draw(1, 2000, 8)
    gallery = gallery[query_mask_distance(query, gallery, mask)[0].argsort(descending=order)]
    _, indices = topk(query, gallery, mask, 30, chunk_size=64)
    expected = torch.arange(30) if not order else torch.arange(1999, 1969, -1)
    assert torch.equal(indices[0], expected)


def test_more_queries_than_one_block_holds():
    query, gallery, mask = draw(1500, 300, 4)
    distances, indices = topk(query, gallery, mask, 3, chunk_size=128)
    expected, _ = nearest(masked_distance(query, gallery, mask), 3)
    torch.testing.assert_close(distances, expected, atol=2e-6, rtol=0)
    assert indices.shape == (1500, 3) and topk(query[:0], gallery, mask[:0], 3)[1].shape == (0, 3)


def test_zero_rows_queries_and_masks_have_distance_one():
    query, gallery, mask = draw(3, 70, 8)
    query[0], mask[1], gallery[:] = 0, 0, gallery[0]
    gallery[5] = 0
    distances, indices = topk(query, gallery, mask, 70, chunk_size=16)
    for row in (0, 1):
        assert torch.equal(distances[row], torch.ones(70)) and torch.equal(indices[row], torch.arange(70))
    assert distances[2, indices[2] == 5] == 1


# Kinds of galleries


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_memory_mapped_array_is_searched_like_the_tensor(tmp_path, dtype):
    query, gallery, mask = draw(gallery=150)
    np.save(tmp_path / "rows.npy", gallery.numpy().astype(dtype))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    found = topk(query, mapped, mask, 9, chunk_size=32)
    expected = topk(query, torch.from_numpy(np.array(mapped)), mask, 9, chunk_size=32)
    assert all(torch.equal(*pair) for pair in zip(found, expected))


@pytest.mark.parametrize("stored, error", [("float32", 1e-6), ("float16", 1e-3)])
@pytest.mark.parametrize("masked", [True, False])
def test_a_saved_gallery_holds_unit_rows_and_is_searched_from_the_file(tmp_path, stored, error, masked):
    query, gallery, mask = draw(gallery=3000, dim=12)
    gallery[7] = 0
    Gallery(gallery * 100).save(tmp_path / "new" / "gallery.npy", stored)
    opened = Gallery.open(tmp_path / "new" / "gallery.npy")
    assert (len(opened), opened.dim) == (3000, 12)
    lengths = opened.rows.float().norm(dim=1)
    assert lengths[7] == 0 and torch.allclose(lengths[8:], torch.ones(2992), atol=1e-3)
    mask = mask if masked else None
    distances, _ = topk(query, opened, mask, 20)
    torch.testing.assert_close(distances, topk(query, gallery, mask, 20)[0], atol=error, rtol=0)
    # Its distances are those of the rounded rows, not rounded distances.
    expected, _ = nearest(query_mask_distance(query, opened.rows, mask), 20)
    torch.testing.assert_close(distances, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("masked", [True, False])
def test_features_kept_in_half_precision_are_compared_in_float32(dtype, masked):
    query, gallery, mask = draw(gallery=200)
    kept = Gallery(unit_rows(gallery).to(dtype), unit=True)
    mask = mask if masked else None
    expected, _ = nearest(query_mask_distance(query, kept.rows, mask), 20)
    torch.testing.assert_close(topk(query, kept, mask, 20)[0], expected, atol=1e-6, rtol=0)


def test_autocast_does_not_lower_the_precision_and_no_graph_is_kept():
    query, gallery, mask = draw()
    expected, _ = topk(query, gallery, mask, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = topk(query.requires_grad_(), gallery.requires_grad_(), mask, 5)
    assert torch.equal(found, expected) and not found.requires_grad


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory restarts on Linux only")
def test_memory_does_not_grow_with_the_gallery():
    query, gallery, mask = draw(500, 60_000, 4)  # a matrix of 120 MB
    gallery = Gallery(unit_rows(gallery), unit=True)
    topk(query, gallery, mask, 10)
    used = take_turns({"search": lambda: topk(query, gallery, mask, 10)}, rounds=1, warmup=0)["search"]
    assert used.memory_mb < 40


# Mistakes


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("unit", [True, False])
def test_a_gallery_row_that_is_not_finite_is_named(value, masked, unit):
    query, gallery, mask = draw(gallery=100)
    gallery /= gallery.norm(dim=1, keepdim=True)
    gallery[70, 3], query[:, 3], mask[:, 3] = value, 0, 0  # no product sees the value, only 0 * inf
    with pytest.raises(DPMError, match="gallery row 70 holds NaN or infinity"):
        topk(query, Gallery(gallery, unit=unit), mask if masked else None, 5, chunk_size=32)


@pytest.mark.parametrize("name", ["query", "query_mask"])
def test_a_query_that_is_not_finite_is_named(name):
    query, gallery, mask = draw()
    {"query": query, "query_mask": mask}[name][3, 2] = float("nan")
    with pytest.raises(DPMError, match=f"{name} row 3 holds NaN"):
        topk(query, gallery, mask, 5)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(k=0), "k is 0, but must be between 1 and the 40 images"),
        (dict(k=41), "k is 41"),
        (dict(chunk_size=0), "chunk_size must be at least 1, got 0"),
        (dict(query=torch.rand(5, 15), query_mask=None), r"query is \(5, 15\); expected \(Q, 16\)"),
        (dict(query=torch.rand(16)), r"query \(16,\), query_mask \(5, 16\); expected \(n, D\)"),
        (dict(query_mask=torch.rand(4, 16)), r"query \(5, 16\), query_mask \(4, 16\)"),
        (dict(query=np.zeros((5, 16))), "query must be a torch tensor, got ndarray"),
        (dict(gallery=torch.rand(16)), r"\(G, D\) float tensor or array"),
        (dict(gallery=torch.zeros(0, 16)), "at least one row"),
        (dict(gallery=torch.ones(40, 16, dtype=torch.int32)), "int32"),
        (dict(gallery=np.ones((40, 16), ">f4")), "NumPy type >f4 cannot be read"),
        (dict(gallery=[[1.0]]), "a gallery is a torch tensor or NumPy array, got list"),
    ],
)
def test_input_that_cannot_be_searched_is_explained(change, said):
    arguments = dict(zip(("query", "gallery", "query_mask"), draw()), k=5)
    with pytest.raises(DPMError, match=said):
        topk(**{**arguments, **change})


def test_files_that_are_no_gallery_are_named(tmp_path):
    path = tmp_path / "rows.npy"
    with pytest.raises(DPMError, match="rows.npy' cannot be read: .*No such file"):
        Gallery.open(path)
    path.write_bytes(b"\x93NUMPY but not really")
    with pytest.raises(DPMError, match="rows.npy' cannot be read"):
        Gallery.open(path)
    for rows in (3 * np.ones((4, 2), np.float32), np.full((4, 2), np.nan, np.float32)):
        np.save(path, rows)
        with pytest.raises(DPMError, match="not of length 1: it was not written by Gallery.save"):
            Gallery.open(path)


def test_a_gallery_that_cannot_be_written_says_why(tmp_path):
    rows = torch.rand(3000, 2)
    with pytest.raises(DPMError, match="stored as float16 or float32, got 'int8'"):
        Gallery(rows).save(tmp_path / "gallery.npy", "int8")
    (tmp_path / "file").touch()
    with pytest.raises(DPMError, match="gallery.npy' cannot be written"):
        Gallery(rows).save(tmp_path / "file" / "gallery.npy")
    rows[2000, 1] = float("nan")
    with pytest.raises(DPMError, match="row 2000"):
        Gallery(rows).save(tmp_path / "gallery.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
