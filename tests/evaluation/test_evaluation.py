"""From features to rows and tables."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpm_plugin import torchreid_host
from dpm_plugin.evaluation import rerank
from dpm_plugin.evaluation.extract import Features
from dpm_plugin.evaluation.metric import evaluate_rank
from dpm_plugin.evaluation.protocol import evaluate, format_headline, format_table
from dpm_plugin.evaluation.rerank import masked_reranking
from dpm_plugin.method.retrieval import query_mask_distance, shuffled_masks
from dpm_plugin.utils.errors import DPMError
from helpers.features import features

pytestmark = pytest.mark.torchreid

FOUR_ROWS = ["before/off", "before/on", "after/off", "after/on"]


@pytest.fixture
def query():
    return features(20, camid=0, seed=1)


@pytest.fixture
def gallery():
    return features(60, camid=1, seed=2)


def assert_row(row, distmat, query, gallery, **options):
    """The row is the metric of these distances."""
    labels = (query.pids, gallery.pids, query.camids, gallery.camids)
    cmc, mAP = evaluate_rank(np.asarray(distmat), *labels, **options)
    assert row.cmc.tolist() == cmc.tolist() and row.mAP == mAP


def test_every_row_is_the_metric_of_its_own_distance(query, gallery):
    result = evaluate(query, gallery)
    shuffled = shuffled_masks(query.mask)
    static = torch.stack([sum(gallery.mask) / len(gallery)] * len(query))
    expected = {
        "before/off": query_mask_distance(query.cls, gallery.cls, None),
        "before/on": query_mask_distance(query.cls, gallery.cls, query.mask),
        "after/off": query_mask_distance(query.embedding, gallery.embedding, None),
        "after/on": query_mask_distance(query.embedding, gallery.embedding, query.mask),
        "after/shuffled": query_mask_distance(query.embedding, gallery.embedding, shuffled),
        "after/static": query_mask_distance(query.embedding, gallery.embedding, static),
    }
    assert list(result.rows) == list(expected)
    for name, distmat in expected.items():
        assert_row(result.rows[name], distmat, query, gallery)
    assert len({row.mAP for row in result.rows.values()}) == 6  # the case tells the rows apart


@pytest.mark.parametrize(
    "options, headline",
    [
        ({}, "after/on"),
        ({"feature": "before"}, "before/on"),
        ({"mask": False}, "after/off"),
        ({"feature": "before", "mask": False}, "before/off"),
    ],
)
def test_feature_and_mask_choose_the_headline_and_its_control(query, gallery, options, headline):
    result = evaluate(query, gallery, keep_distmat=True, **options)
    assert result.headline == headline
    assert list(result.rows) == FOUR_ROWS + [
        f"{headline.split('/')[0]}/{control}" for control in ("shuffled", "static")
    ]
    assert (result.rank1, result.mAP) == (result.rows[headline].rank1, result.rows[headline].mAP)
    assert_row(result.rows[headline], result.distmat, query, gallery)


def test_there_is_no_control_where_one_query_cannot_be_shuffled(gallery):
    assert list(evaluate(features(1, 0, 1), gallery).rows) == FOUR_ROWS


def test_a_baseline_has_rows_without_mask_only():
    result = evaluate(features(9, 0, 1, mask=False), features(30, 1, 2, mask=False), mask=True)
    assert list(result.rows) == ["before/off", "after/off"] and result.headline == "after/off"


@pytest.mark.parametrize("dist_metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_stock_model_is_evaluated_as_torchreid_does(dist_metric, normalize):
    query, gallery = features(9, 0, 1, cls=False, mask=False), features(30, 1, 2, cls=False, mask=False)
    result = evaluate(query, gallery, dist_metric=dist_metric, normalize_feature=normalize)
    rows = [query.embedding, gallery.embedding]
    rows = [torch.nn.functional.normalize(x) for x in rows] if normalize else rows
    distmat = torchreid_host.metrics.compute_distance_matrix(*rows, dist_metric).numpy()
    expected = torchreid_host.metrics.evaluate_rank(
        distmat, query.pids, gallery.pids, query.camids, gallery.camids, use_cython=False
    )
    assert list(result.rows) == [result.headline] == ["embedding"]
    assert result.rows["embedding"].cmc.tolist() == expected[0].tolist()
    assert result.mAP == pytest.approx(expected[1], abs=1e-12)


def test_features_in_half_precision_give_the_same_kind_of_result(query, gallery):
    for side in (query, gallery):
        side.embedding, side.cls, side.mask = (x.half() for x in (side.embedding, side.cls, side.mask))
    result = evaluate(query, gallery, keep_distmat=True)
    assert result.distmat.dtype == np.float32 and 0 < result.mAP <= 1


def test_cuhk03_metric_reaches_torchreid(query, gallery):
    np.random.seed(7)
    row = evaluate(query, gallery, ranks=(1, 5), use_metric_cuhk03=True).rows["before/off"]  # the first row
    np.random.seed(7)
    distmat = query_mask_distance(query.cls, gallery.cls, None)
    assert_row(row, distmat, query, gallery, use_metric_cuhk03=True)
    with pytest.raises(DPMError, match="rank 20 was asked for, but only 6 identities"):
        evaluate(query, gallery, use_metric_cuhk03=True)


def test_ranks_beyond_torchreids_fifty_are_computed(query, gallery):
    assert len(evaluate(query, gallery, ranks=(1, 55)).rows["after/on"].cmc) == 55


# Re-ranking


def mutual(a, b, mask_a, mask_b):
    return float(torch.cosine_similarity(mask_b * a, mask_a * b, dim=0))


@pytest.mark.parametrize("masked", [True, False])
def test_reranking_is_torchreids_on_distances_that_see_each_image_through_the_others_mask(masked, monkeypatch):
    monkeypatch.setattr(rerank, "BLOCK", 7)  # several blocks of either side
    query, gallery = features(20, camid=0, seed=1), features(60, camid=1, seed=2)
    masks = query.mask if masked else torch.ones_like(query.mask)
    images = [*zip(query.embedding, masks), *((row, torch.ones_like(row)) for row in gallery.embedding)]
    chords = [[(2 - 2 * mutual(a, b, m, n)) ** 0.5 if a is not b else 0 for b, n in images] for a, m in images]
    chords = np.nan_to_num(np.array(chords, np.float32))
    expected = torchreid_host.utils.re_ranking(chords[:20, 20:], chords[:20, :20], chords[20:, 20:])
    found = masked_reranking(query.embedding, gallery.embedding, query.mask if masked else None)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


@settings(max_examples=30, deadline=None)
@given(queries=st.integers(1, 9), gallery=st.integers(1, 60), ids=st.integers(1, 8), seed=st.integers(0, 999))
def test_reranking_of_any_number_of_images_is_torchreids(queries, gallery, ids, seed):
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(size=(ids, 5))[rng.integers(0, ids, queries + gallery)])
    points = points + torch.from_numpy(rng.normal(size=points.shape))
    distances = torch.cdist(points, points).float()
    found = rerank.k_reciprocal(lambda part: distances[part] ** 2, queries, gallery)
    d = distances.numpy()
    expected = torchreid_host.utils.re_ranking(d[:queries, queries:], d[:queries, :queries], d[queries:, queries:])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_reranked_row_is_added_and_becomes_the_headline(query, gallery):
    plain, result = evaluate(query, gallery), evaluate(query, gallery, rerank=True, keep_distmat=True)
    assert result.headline == "after/on+rerank"
    assert list(result.rows) == list(plain.rows) + [result.headline]
    assert result.rows["after/on"].mAP == plain.mAP
    expected = masked_reranking(query.embedding, gallery.embedding, query.mask)
    np.testing.assert_array_equal(result.distmat, expected)
    assert_row(result.rows["after/on+rerank"], expected, query, gallery)
    unmasked = evaluate(query, gallery, mask=False, rerank=True, keep_distmat=True)
    expected = masked_reranking(query.embedding, gallery.embedding, None)
    np.testing.assert_array_equal(unmasked.distmat, expected)


def test_a_stock_model_is_reranked_as_torchreid_does():
    query, gallery = features(9, 0, 1, cls=False, mask=False), features(30, 1, 2, cls=False, mask=False)
    result = evaluate(query, gallery, dist_metric="euclidean", rerank=True, keep_distmat=True)
    pairs = ((query, gallery), (query, query), (gallery, gallery))
    blocks = [
        torchreid_host.metrics.compute_distance_matrix(a.embedding, b.embedding, "euclidean").numpy() for a, b in pairs
    ]
    np.testing.assert_allclose(result.distmat, torchreid_host.utils.re_ranking(*blocks), atol=1e-5)
    assert result.headline == "embedding+rerank"


def test_reranking_without_the_memory_for_it_says_how_much_it_needs(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 1000)  # pages of so many bytes
    query, gallery = features(1000, 0, 1), features(4000, 1, 2)
    with pytest.raises(DPMError, match=r"re-ranking 5000 images needs about 0.1 GB .*test.rerank"):
        evaluate(query, gallery, rerank=True)


# Mistakes


def damage(side, field, value):
    getattr(side, field)[3, 2] = value
    getattr(side, field)[7, 0] = value


@pytest.mark.parametrize("side, field", [("query", "mask"), ("query", "embedding"), ("gallery", "cls")])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_counted_and_located(query, gallery, side, field, value):
    damaged = {"query": query, "gallery": gallery}
    damage(damaged[side], field, value)
    with pytest.raises(DPMError, match=f"{side} {field}: 2 of .* first is image 3"):
        evaluate(query, gallery)
    damaged[side].paths = [f"{i}.jpg" for i in range(60)]
    with pytest.raises(DPMError, match="first is '3.jpg'"):
        evaluate(query, gallery)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"feature": "neck"}, "feature is 'neck'; choose one of before, after"),
        ({"dist_metric": "l1"}, "dist_metric is 'l1'; choose one of euclidean, cosine"),
        ({"ranks": (1, 61)}, "rank 61 was asked for, but the gallery has 60 images"),
        ({"ranks": (0, 1)}, "1-based"),
        ({"ranks": ()}, "at least one"),
    ],
)
def test_unknown_options_name_the_choices(query, gallery, options, said):
    with pytest.raises(DPMError, match=said):
        evaluate(query, gallery, **options)


def test_features_that_do_not_fit_are_refused(query, gallery):
    cases = [
        (query, features(60, 1, 2, cls=False), "not of one model"),
        (query, features(60, 1, 2, width=11), "not of one model"),
        (query, features(0, 1, 2), "rank 20 was asked for, but the gallery has 0"),
        (features(0, 0, 2), gallery, "at least one image"),
        (Features(query.embedding, query.pids[1:], query.camids), gallery, "20 features, 19 identities"),
        (Features(query.embedding, query.pids, query.camids, query.cls[:, 1:]), gallery, "do not fit each"),
        (query, features(60, 0, 2), "only under the query's own camera"),
    ]
    for bad_query, bad_gallery, said in cases:
        with pytest.raises(DPMError, match=said):
            evaluate(bad_query, bad_gallery)


# Text


def test_the_table_shows_every_row_in_percent_and_marks_the_headline(query, gallery):
    result = evaluate(query, gallery, ranks=(1, 5))
    header, *lines = format_table(result).splitlines()
    assert header.split() == ["row", "mAP", "R-1", "R-5"]
    assert [line.lstrip("* ").split()[0] for line in lines] == list(result.rows)
    assert [line for line in lines if line.startswith("*")] == [lines[3]]
    row = result.rows["after/on"]
    assert lines[3].split()[2:] == [f"{100 * value:.1f}" for value in (row.mAP, row.cmc[0], row.cmc[4])]
    assert len({len(line) for line in (header, *lines)}) == 1
    assert "have no gallery image" not in format_table(result)


def test_the_headline_reads_as_in_torchreid(query, gallery):
    result = evaluate(query, gallery, ranks=(1, 20))
    cmc = result.rows["after/on"].cmc
    assert format_headline(result).splitlines() == [
        "** Results **",
        f"mAP: {result.mAP:.1%}",
        "CMC curve",
        f"Rank-1  : {cmc[0]:.1%}",
        f"Rank-20 : {cmc[19]:.1%}",
    ]
