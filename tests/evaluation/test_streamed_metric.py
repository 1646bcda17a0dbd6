"""CMC and mAP counted chunk by chunk against those of the whole matrix."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpm_plugin.evaluation import metric, protocol
from dpm_plugin.evaluation.extract import Features
from dpm_plugin.evaluation.metric import evaluate_rank, streamed_evaluate_rank
from dpm_plugin.evaluation.protocol import evaluate
from dpm_plugin.evaluation.search import MaskedBlocks
from dpm_plugin.method.retrieval import query_mask_distance
from dpm_plugin.utils.errors import DPMError
from experiments.benchmark.features import draw, draw_masks
from experiments.benchmark.timing import take_turns
from experiments.oracles.plain_metric import loop_metric


def blocks_of(distmat):
    distmat = torch.from_numpy(distmat)
    return lambda gallery_rows: lambda query_rows: distmat[query_rows][:, gallery_rows].clone()


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    count_q, count_g, ids, cameras = (draw(st.integers(1, high)) for high in (12, 60, 6, 3))
    values = draw(st.sampled_from([1, 2, 5, 10_000]))  # few: many ties
    labels = [
        rng.integers(0, high, n) for high, n in ((ids, count_q), (ids, count_g), (cameras, count_q), (cameras, count_g))
    ]
    assume(any(((labels[1] == p) & (labels[3] != c)).any() for p, c in zip(labels[0], labels[2])))
    distmat = rng.integers(0, values, (count_q, count_g)) / 4
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    return 1 + 1e-12 * distmat if dtype == np.float64 else distmat.astype(dtype), *labels  # alike in float32


@pytest.mark.filterwarnings("ignore:.*left out of CMC")
@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(1, 60), st.sampled_from([1, 2, 7, 1000]), st.sampled_from([1, 3, 1000]))
def test_equals_the_walk_over_every_ranked_list_for_any_chunks_and_ties(case, max_rank, chunk_size, query_block):
    with mock.patch.object(metric, "QUERY_BLOCK", query_block), mock.patch.object(metric, "CHUNK_SIZE", chunk_size):
        cmc, mAP = streamed_evaluate_rank(blocks_of(case[0]), *case[1:], max_rank, chunk_size=chunk_size)
        whole = evaluate_rank(*case, max_rank=max_rank, use_cython=False)
    expected = loop_metric(*case, min(max_rank, case[0].shape[1]))
    np.testing.assert_allclose(cmc, expected[0], atol=1e-6)
    assert mAP == pytest.approx(expected[1], abs=1e-12)
    assert cmc.dtype == whole[0].dtype and cmc.tolist() == whole[0].tolist() and mAP == whole[1]


def sides(query=30, gallery=400, dim=12, cameras=3):
    query, gallery = (draw(count, dim, identities=20, seed=seed) for seed, count in enumerate((query, gallery), 1))
    rng = np.random.default_rng(0)
    return query, gallery, [rng.integers(0, cameras, len(side.pids)) for side in (query, gallery)]


@pytest.mark.parametrize("masked", [True, False])
def test_masked_blocks_are_the_masked_distance_memory_mapped_or_not(tmp_path, masked):
    query, gallery, camids = sides()
    mask = draw_masks(30, 12, spread=0.2) if masked else None
    labels = (query.pids.numpy(), gallery.pids.numpy(), *camids)
    expected = evaluate_rank(query_mask_distance(query.rows, gallery.rows, mask).numpy(), *labels, use_cython=False)
    np.save(tmp_path / "rows.npy", gallery.rows.numpy())
    for rows in (gallery.rows, np.load(tmp_path / "rows.npy", mmap_mode="r")):
        with torch.autocast("cpu", dtype=torch.bfloat16):  # does not lower the precision
            cmc, mAP = streamed_evaluate_rank(MaskedBlocks(query.rows, rows, mask), *labels, chunk_size=64)
        assert cmc.tolist() == expected[0].tolist() and mAP == expected[1]


def test_images_of_several_identities_with_one_feature_come_in_gallery_order():
    rows = torch.eye(4)[[0, 0, 0, 1, 0, 0]]  # distances 0, 0, 0, 1, 0, 0
    blocks = MaskedBlocks(torch.eye(4)[:1], rows, torch.ones(1, 4))
    _, mAP = streamed_evaluate_rank(blocks, [1], [2, 1, 3, 1, 1, 1], [0], [1, 1, 1, 1, 0, 1], chunk_size=2)
    assert mAP == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)  # the fifth image is under the query's own camera


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory restarts on Linux only")
def test_memory_does_not_grow_with_the_matrix():
    query, gallery, camids = sides(500, 60_000, 4)  # 120 MB
    gallery.pids[:] = torch.arange(60_000)
    gallery.pids[::3000] = torch.arange(20)
    labels = (query.pids.numpy(), gallery.pids.numpy(), camids[0], camids[1] + 3)

    def metric():
        return streamed_evaluate_rank(MaskedBlocks(query.rows, gallery.rows, None), *labels)

    used = take_turns({"metric": metric}, rounds=1, warmup=0)["metric"]
    assert used.memory_mb < 50


# Through evaluate


def features(side, camids, spaces):
    named = {"cls": side.rows + 1, "mask": draw_masks(len(side.rows), 12, spread=0.2)}
    return Features(side.rows, side.pids, camids, **{name: named[name] for name in spaces})


@pytest.fixture(params=[("cls", "mask"), ("cls",), ()], ids=["dpm", "baseline", "stock"])
def both_sides(request):
    query, gallery, camids = sides(gallery=150)
    return tuple(features(side, ids, request.param) for side, ids in zip((query, gallery), camids))


@pytest.mark.parametrize("options", [{}, {"dist_metric": "euclidean", "normalize_feature": True}, {"rerank": True}])
def test_evaluation_beyond_the_limit_has_the_rows_and_numbers_of_the_matrix(both_sides, options, monkeypatch):
    monkeypatch.setattr(protocol, "MATRIX_LIMIT", 4 * 30 * 150)
    whole = evaluate(*both_sides, **options)
    monkeypatch.setattr(protocol, "MATRIX_LIMIT", 4 * 30 * 150 - 1)
    with mock.patch("dpm_plugin.evaluation.distances.query_mask_distance", side_effect=AssertionError("a matrix")):
        streamed = evaluate(*both_sides, **options)
    assert list(streamed.rows) == list(whole.rows) and streamed.headline == whole.headline
    for name, row in whole.rows.items():
        assert streamed.rows[name].cmc.tolist() == row.cmc.tolist(), name
        assert streamed.rows[name].mAP == pytest.approx(row.mAP, abs=1e-12), name
    assert "distance" in whole.phases and "distance" not in streamed.phases and "metric" in streamed.phases


def test_distances_beyond_the_limit_are_not_kept(both_sides, monkeypatch):
    monkeypatch.setattr(protocol, "MATRIX_LIMIT", 0)
    with pytest.raises(DPMError, match=r"distances of 30 x 150 images would take 1.8e-05 GB .* test.visrank"):
        evaluate(*both_sides, keep_distmat=True)
    kept = evaluate(*both_sides, keep_distmat=True, rerank=True).distmat  # re-ranking has them anyway
    assert kept.shape == (30, 150)


def test_the_cuhk03_protocol_takes_the_matrix_whatever_its_size(both_sides, monkeypatch):
    found = []
    for limit in (0, 10**9):
        np.random.seed(3)
        monkeypatch.setattr(protocol, "MATRIX_LIMIT", limit)
        found.append(evaluate(*both_sides, ranks=(1, 5), use_metric_cuhk03=True).mAP)
    assert found[0] == found[1]


# Mistakes


def test_queries_without_a_match_are_counted_in_a_warning():
    with pytest.warns(UserWarning, match="1 of 2 queries have no gallery image"):
        cmc, mAP = streamed_evaluate_rank(blocks_of(np.zeros((2, 2))), [1, 9], [2, 1], [0, 0], [1, 1])
    assert cmc.tolist() == [0, 1] and mAP == 0.5


@pytest.mark.parametrize("place", [0, 2])  # of the image to find, of another
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_distances_that_are_not_finite_are_refused(place, value):
    distmat = np.zeros((1, 3))
    distmat[0, place] = value
    with pytest.raises(DPMError, match="distances are not finite"):
        streamed_evaluate_rank(blocks_of(distmat), [1], [1, 2, 3], [0], [1, 1, 1], chunk_size=1)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(g_pids=[1, 2]), "shapes do not fit"),
        (dict(q_pids=[], q_camids=[]), "0 queries"),
        (dict(max_rank=0), "max_rank must be at least 1"),
        (dict(chunk_size=0), "chunk_size must be at least 1"),
        (dict(g_pids=[5, 6, 7]), "none of their identities is in the gallery"),
    ],
)
def test_input_that_cannot_be_evaluated_is_explained(change, said):
    labels = dict(q_pids=[1], g_pids=[1, 2, 3], q_camids=[0], g_camids=[1, 1, 1])
    with pytest.raises(DPMError, match=said):
        streamed_evaluate_rank(blocks_of(np.zeros((1, 3))), **{**labels, **change})


def test_gallery_features_that_are_not_finite_are_named_when_they_are_read():
    query, gallery, camids = sides()
    gallery.rows[333, 0] = float("nan")
    labels = (query.pids.numpy(), gallery.pids.numpy(), *camids)
    with pytest.raises(DPMError, match="gallery row 333 holds NaN"):
        streamed_evaluate_rank(MaskedBlocks(query.rows, gallery.rows, None), *labels, chunk_size=50)
