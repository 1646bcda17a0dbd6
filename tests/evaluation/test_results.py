"""What an evaluation leaves: results.json, ranked lists, phases."""

import json
import os
import sys

import cv2
import numpy as np
import pytest

from dpm_plugin.evaluation.protocol import evaluate, format_table
from dpm_plugin.evaluation.results import library_versions, write_results
from dpm_plugin.evaluation.visrank import visualize_ranks
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.timing import format_phases, measure
from helpers.features import features

pytestmark = pytest.mark.torchreid


@pytest.fixture
def result():
    return evaluate(features(20, camid=0, seed=1), features(60, camid=1, seed=2))


def strict(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.filterwarnings("ignore:.*left out of CMC")
def test_queries_without_a_match_are_counted_and_the_first_of_them_named(tmp_path):
    query, gallery = features(20, camid=0, seed=1), features(60, camid=1, seed=2)
    query.paths = [f"{index}.jpg" for index in range(20)]
    query.pids[[3, 11]] = 77
    result = evaluate(query, gallery)
    assert "2 of 20 queries" in format_table(result) and format_table(result).endswith(": 3.jpg, 11.jpg")
    write_results(tmp_path / "results.json", "occluded_duke", result)
    assert strict(tmp_path / "results.json")["datasets"]["occluded_duke"]["unmatched"] == ["3.jpg", "11.jpg"]
    query.pids[:7] = 77
    assert format_table(evaluate(query, gallery)).endswith(": 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ...")


def test_results_hold_rows_counts_phases_and_the_run(result, tmp_path):
    path = tmp_path / "new" / "results.json"
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


def test_torchreids_version_is_that_of_the_code_that_runs_not_of_what_is_installed(torchreid_layout, monkeypatch):
    assert torchreid_layout == "installed" or library_versions()["torchreid"] == "1.4.0"
    monkeypatch.setattr(sys.modules["torchreid"], "__version__", "1.5.0")
    assert library_versions()["torchreid"] == "1.5.0"


def test_later_evaluations_replace_the_entry_and_extend_the_history(result, tmp_path):
    path = tmp_path / "results.json"
    write_results(path, "market1501", result, epoch=1, run={"seed": 1})
    for epoch in (10, 20, 30, 20, None):  # resumed after 10, then tested without training
        write_results(path, "occluded_duke", result, epoch=epoch)
    content = strict(path)
    entry = content["datasets"]["occluded_duke"]
    assert [past["epoch"] for past in entry["history"]] == [10, 20] and entry["epoch"] is None
    assert entry["history"][0] == {"epoch": 10, "row": "after/on", "rank1": result.rank1, "mAP": result.mAP}
    assert content["datasets"]["market1501"]["epoch"] == 1 and content["run"] == {"seed": 1}


ODD_HISTORIES = ["1", '{"occluded_duke": 1}', '{"a": {"history": 1}}', '{"a": {"history": [{"epoch": "x"}]}}']
ODD = ["{", "[]", '{"run": {}}', '{"run": 1, "datasets": {}}', "[" * 10**5]


@pytest.mark.parametrize("text", ODD + [f'{{"run": {{}}, "datasets": {odd}}}' for odd in ODD_HISTORIES])
def test_a_file_that_is_not_results_is_kept_aside(result, tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.warns(UserWarning, match="does not hold results"):
        write_results(path, "occluded_duke", result)
    assert (tmp_path / "results.json.unreadable").read_text() == text
    assert list(strict(path)["datasets"]) == ["occluded_duke"]


def test_a_failed_write_names_the_file_and_leaves_the_old_one(result, tmp_path, monkeypatch):
    path = tmp_path / "results.json"
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
def images(tmp_path):
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


def test_ranked_lists_are_drawn_for_tif_and_non_ascii_names(images, tmp_path):
    distmat = np.array([[0.0, 0.2, 0.1, 0.3]])
    visualize_ranks(distmat, *images, tmp_path / "visrank", width=8, height=16, topk=2)
    drawn = cv2.imdecode(np.fromfile(tmp_path / "visrank" / "q_ä.jpg", np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (16, 3 * 8 + 2 * 10 + 90, 3)
    first, second = drawn[8, 108 + 1], drawn[8, 126 + 1]  # frames of the nearest two, BGR
    assert first[2] > first[1] and second[1] > second[2]  # red: identity 2; green: 1 under another camera


@pytest.mark.parametrize("spoil", ["corrupt", "missing"])
def test_an_image_that_cannot_be_read_is_named(images, tmp_path, spoil):
    path = images[1][2][0]
    os.remove(path)
    if spoil == "corrupt":
        with open(path, "wb") as file:
            file.write(b"no image")
    with pytest.raises(DPMError, match="g2.jpg' cannot be read by OpenCV"):
        visualize_ranks(np.zeros((1, 4)), *images, tmp_path / "visrank", topk=4)


def test_phases_are_printed_with_seconds_and_the_highest_memory():
    phases = {"train": {"seconds": 2.04, "peak_memory_mb": 1200.0}, "metric": {"seconds": 0.5, "peak_memory_mb": 800.0}}
    assert format_phases(phases) == "train 2.0 s  metric 0.5 s  peak memory 1,200 MB"


def test_phases_sum_seconds_over_entries():
    phases = {"extract": {"seconds": 5.0}}
    with measure(phases, "extract"):
        pass
    assert phases["extract"]["seconds"] >= 5.0
