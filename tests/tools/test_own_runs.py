"""Runs on your own people from the command line: the same numbers however they are given, and every tool opens them."""

import json
import shutil

import check_data
import export
import pytest
import search
import visualize

from dpm_plugin.inference.run_extractor import Extractor
from dpm_plugin.weights.files import read_checkpoint
from helpers.own import draw_people, three_ways
from helpers.runs import main_of

pytestmark = [pytest.mark.slow, pytest.mark.torchreid, pytest.mark.filterwarnings("ignore:occluded_duke")]

PATTERN = r"^p(?P<pid>\d+)-(?P<camid>c\d+)"


def results(folder, name):
    """What results.json says of a data set, but for times and paths."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["datasets"][name]
    return {key: value for key, value in found.items() if key not in ("phases", "unmatched")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    three_ways(root)
    draw_people(root / "bare", 10, 4)
    return root


@pytest.fixture
def train(data, tmp_path, capsys):
    """``train(folder, name, **settings)`` trains and tests on a data set; returns (stdout, its results)."""

    def call(folder, source, target=None, code=0, **settings):
        names = {"data__sources": [source], "data__targets": [target or source]}
        main = main_of(settings.pop("root", data), tmp_path / folder, capsys)
        found, printed, errors = main(**{**names, **settings})
        assert found == code, errors
        return (printed, results(tmp_path / folder, target or source)) if code == 0 else errors

    return call


def test_the_same_images_as_occluded_duke_as_a_table_and_as_a_folder_give_the_same_numbers(train, tmp_path):
    _, published = train("published", "occluded_duke")
    _, table = train("table", "people.csv")
    _, folder = train("folder", "people", data__own__pattern=PATTERN)
    _, by_path = train("path", "Occluded_Duke")
    assert published == table == folder == by_path
    state, other = (
        read_checkpoint(tmp_path / name / "model" / "last.pth.tar")["state_dict"] for name in ("published", "table")
    )
    assert all(state[key].equal(other[key]) for key in state)


def test_a_moved_table_resumes_and_is_evaluated_with_its_cameras(data, train, tmp_path, monkeypatch):
    train("moved", "people.csv", train__max_epoch=1)
    shutil.copytree(tmp_path / "moved", tmp_path / "stayed")
    _, whole = train("stayed", "people.csv", train__resume="auto")
    shutil.copytree(data, tmp_path / "elsewhere" / data.name)
    place = tmp_path / "elsewhere" / data.name / "people.csv"
    _, resumed = train("moved", str(place), root=tmp_path, train__resume="auto")
    assert {**resumed, "history": whole["history"]} == whole  # which has the first epoch's under the same name
    weights = dict(model__load_weights=tmp_path / "stayed" / "model" / "last.pth.tar", test__evaluate=True)
    monkeypatch.chdir(place.parent)
    _, again = train("evaluated", "./people.csv", root="none", **weights)
    assert again["rows"] == whole["rows"]
    errors = train("moved", "bare", code=2, train__resume="auto", train__max_epoch=3)
    assert "other images or identities" in errors or "other settings" in errors


def test_people_without_cameras_are_split_and_the_split_given_back_gives_the_same_numbers(data, train, tmp_path):
    printed, found = train("log", "bare", data__own__test_share=0.4)
    assert "=> 'bare': 10 people, no cameras" in printed and "the model has no camera embedding" in printed
    assert found["counts"] | {"query": 4, "gallery": 16, "query_ids": 4, "unmatched_queries": 0} == found["counts"]
    checkpoint = read_checkpoint(tmp_path / "log" / "model" / "last.pth.tar")
    assert not any("camera" in key for key in checkpoint["state_dict"])
    assert train("again", str(tmp_path / "log" / "split.csv"), root=tmp_path)[1] == found
    assert not (tmp_path / "again" / "split.csv").exists()


def test_sources_mix_and_several_targets_end_in_one_table(train, data, tmp_path, capsys):
    module_main = main_of(data, tmp_path / "log", capsys)
    names = ["occluded_duke", "bare"]
    code, printed, errors = module_main(data__sources=names, data__targets=names, test__ranks=[1])
    assert code == 0, errors
    lines = printed.splitlines()
    header, row = lines[lines.index("** All targets: rank-1 / mAP **") + 1 :][:2]
    assert header.split() == ["trained", "on", *names] and "## Evaluating" not in printed.partition(header)[2]
    found = [results(tmp_path / "log", name)["headline"] for name in names]
    assert row.split("  ")[0] == "occluded_duke, bare"
    assert all(f"{each['rank1']:.1%} / {each['mAP']:.1%}" in row for each in found)


def test_every_tool_opens_a_run_on_a_path(train, data, tmp_path, capsys, monkeypatch):
    train("log", "people.csv", test__ranks=[1])
    monkeypatch.chdir(tmp_path)
    run = str(tmp_path / "log")
    assert Extractor(run).dataset == "people.csv"
    shutil.copytree(data, tmp_path / "moved")
    assert len(Extractor(run, root=tmp_path / "moved").loader("query").dataset) == 6
    assert visualize.main([run, "--out", "seen", "--queries", "2"]) == 0
    assert export.main([run, "model.pt2"]) == 0
    gallery = str(data / "Occluded_Duke" / "bounding_box_test")
    assert search.main(["index", gallery, "--model", run, "--index", "index"]) == 0, capsys.readouterr().err


def test_the_check_reads_what_training_reads(data, tmp_path, capsys):
    draw_people(tmp_path / "people")
    assert check_data.main(["people.csv", "--root", str(data), "--jobs", "1"]) in (0, 1)
    printed = capsys.readouterr().out
    assert "train             16           4        3" in printed and "query              6           6" in printed
    assert check_data.main([str(tmp_path / "people"), "--jobs", "1"]) == 0, capsys.readouterr().out
    (tmp_path / "people" / "empty").mkdir()
    assert check_data.main([str(tmp_path / "people"), "--jobs", "1"]) == 1
    assert "empty: folder 'empty' has no image; add some, or remove it" in capsys.readouterr().out
