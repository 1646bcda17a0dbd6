"""Approximate top-k: its distances are exact, and it finds what the exact search finds."""

import importlib.util
import sys

import pytest
import torch

from dpm_plugin.evaluation.search import ApproximateIndex, topk
from dpm_plugin.method.retrieval import query_mask_distance
from dpm_plugin.utils.errors import DPMError
from experiments.benchmark.features import draw, draw_masks

needs_faiss = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="faiss is not installed (pip install faiss-cpu)"
)


@pytest.fixture(scope="module")
def case():
    """100 images of each of 20 identities, and 12 queries of them."""
    gallery, query = (draw(count, 32, identities=20, seed=seed).rows for seed, count in enumerate((2000, 12)))
    return query, gallery, draw_masks(12, 32)


def recall(found, exact):
    return (exact[:, :, None] == found[:, None, :]).any(dim=2).float().mean()


@needs_faiss
@pytest.mark.parametrize("options", [{}, {"part": 2}, {"lists": 8}])
@pytest.mark.parametrize("masked", [True, False])
def test_with_the_whole_gallery_as_candidates_it_is_the_exact_search(case, options, masked):
    query, gallery, mask = case
    mask = mask if masked else None
    probes = {"probes": 8} if options.get("lists") else {}
    distances, indices = ApproximateIndex(gallery, **options).search(query, mask, 30, candidates=2000, **probes)
    expected = topk(query, gallery, mask, 30)
    torch.testing.assert_close(distances, expected[0], atol=1e-6, rtol=0)
    assert recall(indices, expected[1]) > 0.99


@needs_faiss
@pytest.mark.parametrize("options", [{}, {"lists": 20}])
def test_few_candidates_hold_nearly_all_of_the_nearest_and_are_ranked_by_their_exact_distance(case, options):
    query, gallery, mask = case
    distances, indices = ApproximateIndex(gallery, **options).search(query, mask, 10)
    every_distance = query_mask_distance(query, gallery, mask)
    torch.testing.assert_close(distances, every_distance.gather(1, indices), atol=1e-6, rtol=0)
    assert torch.equal(distances, distances.sort(dim=1).values)
    assert recall(indices, topk(query, gallery, mask, 10)[1]) > 0.9


@needs_faiss
def test_a_finer_code_recalls_more_of_features_without_clusters():
    query, gallery, mask = draw(40, 32, seed=1).rows, draw(2000, 32).rows, draw_masks(40, 32)
    _, exact = topk(query, gallery, mask, 10)
    coarse, fine = (
        recall(ApproximateIndex(gallery, part=part).search(query, mask, 10, candidates=30)[1], exact) for part in (4, 1)
    )
    assert fine > coarse + 0.1


@needs_faiss
def test_equal_candidates_come_in_gallery_order():
    query, mask = torch.eye(8)[:1], torch.ones(1, 8)
    gallery = torch.eye(8)[torch.arange(64) % 8]
    _, indices = ApproximateIndex(gallery).search(query, mask, 8, candidates=64)
    assert indices[0].tolist() == list(range(0, 64, 8))


@needs_faiss
def test_places_that_the_probed_lists_cannot_fill_are_marked(case):
    query, gallery, mask = case
    distances, indices = ApproximateIndex(gallery, lists=20).search(query, mask, 1500, candidates=2000, probes=1)
    empty = indices == -1
    assert empty.any() and not empty[:, 0].any()
    assert torch.equal(empty, distances.isinf()) and torch.equal(empty, empty.sort(dim=1).values)


@needs_faiss
@pytest.mark.parametrize(
    "build, search, said",
    [
        (dict(part=5), {}, "part is 5, but must divide the 32 channels"),
        (dict(lists=2001), {}, "at most a list for each"),
        (dict(lists=-1), {}, "lists"),
        ({}, dict(k=0), "k is 0"),
        ({}, dict(k=20, candidates=10), "k is 20 and candidates is 10"),
        ({}, dict(candidates=2001), "candidates is 2001"),
        ({}, dict(probes=1), "probes is 1, but must be between 1 and the 0 lists"),
        (dict(lists=4), dict(probes=5), "probes is 5"),
    ],
)
def test_options_out_of_range_are_explained(case, build, search, said):
    query, gallery, mask = case
    with pytest.raises(DPMError, match=said):
        ApproximateIndex(gallery, **build).search(query, mask, **{"k": 5, **search})


@needs_faiss
def test_features_that_are_not_finite_and_tiny_galleries_are_refused(case):
    query, gallery, mask = case
    with pytest.raises(DPMError, match="16 images or more"):
        ApproximateIndex(gallery[:15])
    index = ApproximateIndex(gallery)
    with pytest.raises(DPMError, match="query row 0 holds NaN"):
        index.search(query * float("nan"), mask)
    gallery = gallery.clone()
    gallery[1234, 0] = float("nan")
    with pytest.raises(DPMError, match="gallery row 1234"):
        ApproximateIndex(gallery)


def test_without_faiss_the_way_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(DPMError, match="pip install faiss-cpu"):
        ApproximateIndex(torch.rand(20, 4))
