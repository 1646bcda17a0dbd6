"""From features to rows, tables, results.json and ranked lists."""

import json
import os

import cv2
import numpy as np
import pytest
import torch

from dpm_plugin import torchreid_host
from dpm_plugin.evaluation.extract import Features
from dpm_plugin.evaluation.metric import evaluate_rank
from dpm_plugin.evaluation.protocol import evaluate, format_headline, format_table
from dpm_plugin.evaluation.rerank import masked_reranking
from dpm_plugin.evaluation.results import library_versions, write_results
from dpm_plugin.evaluation.visrank import visualize_ranks
from dpm_plugin.method.retrieval import query_mask_distance, shuffled_masks
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.timing import format_phases, measure

FOUR_ROWS = ["before/off", "before/on", "after/off", "after/on"]


def features(count, camid, seed, cls=True, mask=True, width=12, ids=6):
    generator = torch.Generator().manual_seed(seed)
    pids = [i % ids for i in range(count)]
    centers = torch.randn(ids, width, generator=torch.Generator().manual_seed(99))
    embedding = centers[pids] + torch.randn(count, width, generator=generator)
    before = embedding + 1 + 0.3 * torch.randn(count, width, generator=generator)
    masks = 0.05 + 0.9 * torch.rand(count, width, generator=generator)
    camids = [camid] * count
    return Features(embedding, pids, camids, cls=before if cls else None, mask=masks if mask else None)


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
    result = evaluate(query, gallery, seed=5)
    shuffled = shuffled_masks(query.mask, 5)
    expected = {
        "before/off": query_mask_distance(query.cls, gallery.cls, None),
        "before/on": query_mask_distance(query.cls, gallery.cls, query.mask),
        "after/off": query_mask_distance(query.embedding, gallery.embedding, None),
        "after/on": query_mask_distance(query.embedding, gallery.embedding, query.mask),
        "after/shuffled": query_mask_distance(query.embedding, gallery.embedding, shuffled),
    }
    assert list(result.rows) == list(expected)
    for name, distmat in expected.items():
        assert_row(result.rows[name], distmat, query, gallery)
    assert len({row.mAP for row in result.rows.values()}) == 5  # the case tells the rows apart


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
    assert list(result.rows) == FOUR_ROWS + [headline.split("/")[0] + "/shuffled"]
    assert (result.rank1, result.mAP) == (result.rows[headline].rank1, result.rows[headline].mAP)
    assert_row(result.rows[headline], result.distmat, query, gallery)


def test_the_control_can_be_left_out_and_is_where_one_query_cannot_be_shuffled(query, gallery):
    assert list(evaluate(query, gallery, shuffled_control=False).rows) == FOUR_ROWS
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


def test_reranking_hands_torchreid_distances_whose_squares_are_the_masked_cosine(query, gallery, monkeypatch):
    handed = []
    monkeypatch.setattr(torchreid_host.utils, "re_ranking", lambda *blocks: handed.extend(blocks))
    masked_reranking(query.embedding, gallery.embedding, query.mask)
    query_gallery, query_query, gallery_gallery = (block.astype(np.float64) ** 2 / 2 for block in handed)
    expected = query_mask_distance(query.embedding, gallery.embedding, query.mask)
    np.testing.assert_allclose(query_gallery, expected, atol=1e-6)
    unmasked = query_mask_distance(gallery.embedding, gallery.embedding, None)
    np.testing.assert_allclose(gallery_gallery, unmasked, atol=1e-6)
    for i, j in ((0, 1), (3, 3), (7, 2)):
        a, b = query.mask[j] * query.embedding[i], query.mask[i] * query.embedding[j]
        expected = 1 - torch.cosine_similarity(a, b, dim=0)
        assert query_query[i, j] == pytest.approx(float(expected), abs=1e-6)
        assert query_query[i, j] == pytest.approx(query_query[j, i], abs=1e-6)


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
    np.testing.assert_array_equal(result.distmat, torchreid_host.utils.re_ranking(*blocks))
    assert result.headline == "embedding+rerank"


def test_reranking_without_the_memory_for_it_says_how_much_it_needs():
    with pytest.raises(DPMError, match=r"re-ranking 2000 images needs about 0.1 GB .*test.rerank"):
        masked_reranking(torch.rand(1000, 2), torch.rand(1000, 2), None, memory_limit=10**6)


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


@pytest.mark.filterwarnings("ignore:.*left out of CMC")
def test_queries_without_a_match_are_counted_and_the_first_of_them_named(query, gallery, tmp_path):
    query.paths = [f"{index}.jpg" for index in range(20)]
    query.pids[[3, 11]] = 77
    result = evaluate(query, gallery)
    assert "2 of 20 queries" in format_table(result) and format_table(result).endswith(": 3.jpg, 11.jpg")
    write_results(tmp_path / "results.json", "occluded_duke", result)
    assert strict(tmp_path / "results.json")["datasets"]["occluded_duke"]["unmatched"] == ["3.jpg", "11.jpg"]
    query.pids[:7] = 77
    assert format_table(evaluate(query, gallery)).endswith(": 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ...")


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


def test_phases_sum_seconds_over_entries():
    phases = {"extract": {"seconds": 5.0}}
    with measure(phases, "extract"):
        pass
    assert phases["extract"]["seconds"] >= 5.0


# results.json


def strict(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_results_hold_rows_counts_phases_and_the_run(query, gallery, tmp_path):
    path = tmp_path / "new" / "results.json"
    result = evaluate(query, gallery)
    result.phases["extract_query"] = {"seconds": np.float32(1.5), "peak_memory_mb": float("nan")}
    run = {"model": "dpm_vit", "versions": library_versions()}
    write_results(path, "occluded_duke", result, epoch=3, run=run)
    content = strict(path)
    entry = content["datasets"]["occluded_duke"]
    row = result.rows["after/on"]
    stored = {"rank1": row.rank1, "mAP": row.mAP, "cmc": row.cmc.tolist()}
    assert entry["headline"] == {"row": "after/on", **stored} and entry["rows"]["after/on"] == stored
    assert list(entry["rows"]) == list(result.rows)
    assert entry["counts"] == {"query": 20, "gallery": 60, "query_ids": 6, "gallery_ids": 6, "unmatched_queries": 0}
    assert set(entry["phases"]) == {"distance", "metric", "extract_query"}
    assert entry["phases"]["extract_query"] == {"seconds": 1.5, "peak_memory_mb": None}
    assert content["run"]["model"] == "dpm_vit" and content["run"]["versions"]["torch"]
    assert os.listdir(path.parent) == ["results.json"]


def test_later_evaluations_replace_the_entry_and_extend_the_history(query, gallery, tmp_path):
    path = tmp_path / "results.json"
    result = evaluate(query, gallery)
    write_results(path, "market1501", result, epoch=1, run={"seed": 1})
    for epoch in (10, 20, 30, 20, None):  # resumed after 10, then tested without training
        write_results(path, "occluded_duke", result, epoch=epoch)
    content = strict(path)
    entry = content["datasets"]["occluded_duke"]
    assert [past["epoch"] for past in entry["history"]] == [10, 20] and entry["epoch"] is None
    assert entry["history"][0] == {"epoch": 10, "row": "after/on", "rank1": result.rank1, "mAP": result.mAP}
    assert content["datasets"]["market1501"]["epoch"] == 1 and content["run"] == {"seed": 1}


@pytest.mark.parametrize("text", ["{", "[]", '{"run": {}}', '{"run": 1, "datasets": {}}'])
def test_a_file_that_is_not_results_is_kept_aside(query, gallery, tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.warns(UserWarning, match="does not hold results"):
        write_results(path, "occluded_duke", evaluate(query, gallery))
    assert (tmp_path / "results.json.unreadable").read_text() == text
    assert list(strict(path)["datasets"]) == ["occluded_duke"]


def test_a_failed_write_names_the_file_and_leaves_the_old_one(query, gallery, tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    result = evaluate(query, gallery)
    write_results(path, "occluded_duke", result, epoch=1)
    before = path.read_text()

    def full(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DPMError, match="results.json' cannot be written: No space left"):
        write_results(path, "occluded_duke", result, epoch=2)
    assert path.read_text() == before and os.listdir(tmp_path) == ["results.json"]


# Ranked lists


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "bilder_ü"
    folder.mkdir()
    names = ["q_ä.jpg", "g0.tif", "g1.png", "g2.jpg", "g3.jpg"]
    for name in names:
        kind = os.path.splitext(name)[1]
        _, data = cv2.imencode(kind, np.full((16, 8, 3), 128, np.uint8))
        (folder / name).write_bytes(data.tobytes())
    paths = [str(folder / name) for name in names]
    query = [(paths[0], 1, 0, 0)]
    gallery = [(path, pid, camid, 0) for path, pid, camid in zip(paths[1:], (1, 1, 2, 3), (0, 1, 1, 1))]
    return query, gallery


def test_ranked_lists_are_drawn_for_tif_and_non_ascii_names(pictures, tmp_path):
    distmat = np.array([[0.0, 0.2, 0.1, 0.3]])
    visualize_ranks(distmat, *pictures, tmp_path / "visrank", width=8, height=16, topk=2)
    drawn = cv2.imdecode(np.fromfile(tmp_path / "visrank" / "q_ä.jpg", np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (16, 3 * 8 + 2 * 10 + 90, 3)
    first, second = drawn[8, 108 + 1], drawn[8, 126 + 1]  # frames of the nearest two, BGR
    assert first[2] > first[1] and second[1] > second[2]  # red: identity 2; green: 1 under another camera


@pytest.mark.parametrize("spoil", ["corrupt", "missing"])
def test_a_picture_that_cannot_be_read_is_named(pictures, tmp_path, spoil):
    path = pictures[1][2][0]
    os.remove(path)
    if spoil == "corrupt":
        with open(path, "wb") as file:
            file.write(b"no image")
    with pytest.raises(DPMError, match="g2.jpg' cannot be read by OpenCV"):
        visualize_ranks(np.zeros((1, 4)), *pictures, tmp_path / "visrank", topk=4)


def test_lists_of_another_evaluation_are_refused(pictures, tmp_path):
    with pytest.raises(DPMError, match=r"distmat is \(1, 3\), but there are 1 queries, 4 gallery"):
        visualize_ranks(np.zeros((1, 3)), *pictures, tmp_path)


def test_phases_are_printed_with_seconds_and_the_highest_memory():
    phases = {"train": {"seconds": 2.04, "peak_memory_mb": 1200.0}, "metric": {"seconds": 0.5, "peak_memory_mb": 800.0}}
    assert format_phases(phases) == "train 2.0 s  metric 0.5 s  peak memory 1,200 MB"
