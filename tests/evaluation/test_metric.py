"""dpm_plugin.evaluate_rank against torchreid's own Python metric; against a naive loop, see test_streamed_metric."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpm_plugin import torchreid_host
from dpm_plugin.evaluation import metric
from dpm_plugin.evaluation.metric import evaluate_rank, matching_counts
from dpm_plugin.method.retrieval import query_mask_distance
from dpm_plugin.utils.errors import DPMError

pytestmark = pytest.mark.torchreid

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden" / "retrieval.npz"


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    count_q, count_g = draw(st.integers(1, 8)), draw(st.integers(1, 30))
    ids, cameras = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    distmat = rng.permutation(count_q * count_g).reshape(count_q, count_g)  # all different
    labels = [
        rng.integers(0, high, n) for high, n in ((ids, count_q), (ids, count_g), (cameras, count_q), (cameras, count_g))
    ]
    found = [((labels[1] == p) & (labels[3] != c)).any() for p, c in zip(labels[0], labels[2])]
    assume(any(found))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    return distmat.astype(dtype), *labels


@pytest.mark.filterwarnings("ignore:.*left out of CMC")
@settings(max_examples=100, deadline=None)
@given(cases(), st.data())
def test_equals_torchreid_where_distances_are_all_different(case, data):
    # torchreid fails on CMC curves of unequal length, which arise beyond the shortest gallery of a query.
    distmat, q_pids, g_pids, q_camids, g_camids = case
    kept = [(~((g_pids == p) & (g_camids == c))).sum() for p, c in zip(q_pids, q_camids)]
    assume(min(kept) > 0)
    max_rank = data.draw(st.integers(1, int(min(kept))))
    cmc, mAP = evaluate_rank(*case, max_rank=max_rank, use_cython=False)
    expected = torchreid_host.metrics.evaluate_rank(*case, max_rank=max_rank, use_cython=False)
    assert cmc.dtype == expected[0].dtype and cmc.tolist() == expected[0].tolist()
    assert mAP == pytest.approx(expected[1], abs=1e-12)


def test_equals_the_released_implementation():
    golden = np.load(GOLDEN, allow_pickle=False)
    distmat = query_mask_distance(*(torch.from_numpy(golden[name]) for name in ("qf", "gf", "qm"))).numpy()
    cmc, mAP = evaluate_rank(distmat, golden["qp"], golden["gp"], golden["qc"], golden["gc"])
    assert cmc.tolist() == golden["cmc"].tolist()
    assert mAP == pytest.approx(float(golden["mAP"]), abs=1e-12)


SMALL = (np.array([[0.3, 0.1, 0.2]]), [1], [1, 2, 1], [0], [1, 1, 2])


def test_a_gallery_below_max_rank_shortens_the_curve_with_a_note(capsys):
    cmc, mAP = evaluate_rank(*SMALL, use_cython=False)
    assert cmc.tolist() == [0, 1, 1] and mAP == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert "gallery samples is quite small, got 3" in capsys.readouterr().out


def test_the_distance_matrix_is_not_changed():
    distmat = np.array([[0.3, 0.1, 0.2]])
    evaluate_rank(distmat, [1], [1, 2, 1], [0], [1, 1, 0], use_cython=False)
    assert distmat.tolist() == [[0.3, 0.1, 0.2]]


def test_queries_without_a_match_are_counted_in_a_warning():
    with pytest.warns(UserWarning, match="2 of 3 queries have no gallery image"):
        evaluate_rank(np.zeros((3, 2)), [1, 1, 9], [1, 2], [0, 1, 0], [1, 1])
    assert matching_counts([1, 1, 9], [1, 2], [0, 1, 0], [1, 1]) == (3, 2, 2, 2, 2)


def test_queries_that_all_match_bring_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_rank(*SMALL)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(distmat=np.zeros((2, 3))), r"distmat \(2, 3\), q_pids \(1,\), g_pids \(3,\)"),
        (dict(distmat=np.array([[0.3, np.nan, 0.2]])), "1 of 1 queries are not finite, first query 0"),
        (dict(distmat=np.array([[0.3, np.inf, 0.2]])), "not finite"),
        (dict(distmat=np.zeros((0, 3)), q_pids=[], q_camids=[]), "0 queries, 3 gallery images"),
        (dict(distmat=np.zeros((1, 0)), g_pids=[], g_camids=[]), "1 queries, 0 gallery images"),
        (dict(g_pids=[5, 6, 7]), "none of their identities is in the gallery"),
        (dict(g_camids=[0, 0, 0]), "only under the query's own camera"),
        (dict(max_rank=0), "max_rank must be at least 1"),
    ],
)
def test_input_that_cannot_be_evaluated_is_explained(change, said):
    names = ("distmat", "q_pids", "g_pids", "q_camids", "g_camids")
    with pytest.raises(DPMError, match=said):
        evaluate_rank(**{**dict(zip(names, SMALL)), **change})


def test_cuhk03_metric_is_torchreids_for_one_random_state():
    rng = np.random.default_rng(0)
    distmat = rng.random((4, 40))
    labels = [rng.integers(0, high, n) for high, n in ((5, 4), (5, 40), (2, 4), (2, 40))]
    found = []
    for evaluate in (evaluate_rank, torchreid_host.metrics.evaluate_rank):
        np.random.seed(3)
        found.append(evaluate(distmat, *labels, max_rank=5, use_metric_cuhk03=True, use_cython=False))
    assert found[0][0].tolist() == found[1][0].tolist() and found[0][1] == found[1][1]


def test_the_compiled_form_is_used_where_it_is_built_and_wanted(monkeypatch):
    calls = []
    monkeypatch.setattr(torchreid_host, "compiled_rank_available", lambda: True)
    monkeypatch.setattr(torchreid_host.metrics, "evaluate_rank", lambda *_, **options: calls.append(options))
    metric.evaluate_rank(*SMALL, max_rank=2)
    assert [(call["max_rank"], call["use_cython"]) for call in calls] == [(2, True)]
    metric.evaluate_rank(*SMALL, use_cython=False)
    assert len(calls) == 1
