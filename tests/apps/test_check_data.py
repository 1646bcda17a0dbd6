"""tools/check_data.py: every fault of files and labels is found and named, and an intact data set is clean."""

import json
import os
import runpy
import shutil
import sys
from collections import Counter
from dataclasses import replace

import pytest

from dpm_plugin.apps.check_data import check_data, checking
from dpm_plugin.apps.check_data.checking import Examined, examine, examine_all, find
from dpm_plugin.apps.check_data.listing import Entry, Listed, list_folder
from dpm_plugin.apps.check_data.report import KINDS
from dpm_plugin.apps.image_index.indexing import list_images
from dpm_plugin.commands import check as tool
from dpm_plugin.data import DATASETS, SyntheticSpec
from dpm_plugin.data.datasets import OccludedDuke
from dpm_plugin.data.synthetic import generate
from dpm_plugin.utils.errors import DPMError
from helpers.data import SHARED_LISTS, touch, write_market, write_occluded_duke
from helpers.images import cut, draw_noise
from helpers.scripts import TOOLS

QUERY, TRAIN = "0020_c1_f0000001.jpg", "0003_c1_f0000000.jpg"
SPEC = SyntheticSpec(
    height=32, width=16, train_ids=2, train_images=3, test_ids=2, gallery_images=2, query_images=1, distractor_ids=1
)


def distinct(top):
    """Give the images below a folder bytes of their own."""
    for seed, path in enumerate(sorted(top.rglob("*.jpg"))):
        draw_noise(path, seed)
    return top


@pytest.fixture
def duke(tmp_path, monkeypatch):
    """A small Occluded-Duke that is exactly as "published"."""
    top = distinct(write_occluded_duke(tmp_path))
    published = {"train": (12, 3), "query": (2, 2), "gallery": (2, 2)}
    monkeypatch.setattr(OccludedDuke, "structure", replace(OccludedDuke.structure, published=published))
    return top


def check(what, root="reid-data", plain=False):
    (found,) = check_data(what, root, jobs=1, show=str, plain=plain)
    return found


def kinds(findings):
    return Counter(finding.kind for finding in findings)


def problems(top):
    """[(kind, file names)] of every problem."""
    found = check("occluded_duke", top.parent).problems
    return [(finding.kind, [os.path.basename(path) for path in finding.files]) for finding in found]


def test_an_intact_data_set_is_clean_and_counted(duke):
    found = check("occluded_duke", duke.parent)
    assert found.findings == []
    assert found.splits == {"train": (12, 3, 2), "query": (2, 2, 1), "gallery": (2, 2, 1)}


def gone(path):
    path.unlink()
    path.symlink_to("nowhere.jpg")


@pytest.mark.parametrize(
    "name, spoil, kind",
    [
        (QUERY, cut, "unreadable"),
        (QUERY, lambda path: path.write_text("no image"), "unreadable"),
        (QUERY, gone, "unreadable"),
        (QUERY, lambda path: path.write_bytes(b""), "empty"),
        ("cover.jpg", lambda path: draw_noise(path, 99), "odd_name"),
        ("0003_c9_f1.jpg", lambda path: draw_noise(path, 99), "odd_name"),
        ("12345678901_c1_f1.jpg", lambda path: draw_noise(path, 99), "odd_name"),
    ],
)
def test_a_file_or_name_that_cannot_be_read_is_a_finding_instead_of_the_end(name, spoil, kind, duke):
    spoil(duke / "query" / name)
    assert problems(duke) == [(kind, [name])]


def test_names_with_blanks_around_or_unprintable_letters_are_odd(tmp_path):
    for seed, name in enumerate(("0020_c1_f2\x07.jpg", " 0020_c1_f3.jpg", "line\nbreak.jpg", "good one.jpg")):
        draw_noise(tmp_path / name, seed)
    assert kinds(check(tmp_path, plain=True).problems) == {"odd_name": 3}


@pytest.mark.parametrize(
    "old, new, detail",
    [
        (f"bounding_box_train/{TRAIN}", "bounding_box_train/0003_c1_f0000005.jpg", "twice in train"),
        (f"bounding_box_train/{TRAIN}", "query/0003_c1_f0000005.jpg", "in train and query"),
        (f"query/{QUERY}", "bounding_box_test/0021_c1_f9.jpg", "in query and gallery, with different identities"),
        (f"query/{QUERY}", "bounding_box_test/0020_c3_f0000009.jpg", "in query and gallery"),
    ],
)
def test_the_same_bytes_under_two_names_are_a_duplicate(old, new, detail, duke):
    shutil.copy(duke / old, duke / new)
    found = next(finding for finding in check("occluded_duke", duke.parent).problems if finding.kind == "duplicate")
    assert found.detail == detail and [os.path.relpath(path, duke) for path in found.files] == [old, new]


def test_a_querys_own_copy_in_the_gallery_is_a_note(duke):
    shutil.copy(duke / "query" / QUERY, duke / "bounding_box_test" / QUERY)
    found = check("occluded_duke", duke.parent)
    assert [(finding.kind, finding.is_problem) for finding in found.findings] == [("shared", False), ("counts", True)]


def test_training_identities_of_one_camera_and_queries_without_a_match_are_named(duke):
    for path in (duke / "bounding_box_train").glob("0007_c2*"):
        path.unlink()
    (duke / "bounding_box_test" / "0020_c2_f0000002.jpg").rename(duke / "bounding_box_test" / "0020_c1_f0000002.jpg")
    found = {finding.kind: finding for finding in check("occluded_duke", duke.parent).problems}
    assert set(found) == {"one_camera", "unmatched_query", "counts"}
    assert "identity 7, 2 images, is seen by camera index 0 only" in found["one_camera"].detail
    assert found["unmatched_query"].detail == "identity 20 is in the gallery only under the query's own camera"


def test_other_counts_than_the_published_ones_and_names_that_training_shares_are_findings(duke):
    (duke / "bounding_box_train" / TRAIN).unlink()
    (found,) = check("occluded_duke", duke.parent).problems
    assert found.detail == "train has 11 images of 3 identities, published are 12 of 3"
    draw_noise(duke / "bounding_box_train" / QUERY, 77)  # other bytes
    assert ("same_name", [QUERY, QUERY]) in problems(duke)


@pytest.mark.skipif(not SHARED_LISTS.is_dir(), reason="the published lists are not beside the repository")
def test_the_published_occluded_duke_has_no_problem_and_1870_shared_images():
    folders = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    entries = [
        Entry(split, f"{folder}/{name}", *OccludedDuke.parse(name, 0))
        for split, folder in folders.items()
        for name in (SHARED_LISTS / f"{split}.list").read_text().split()
    ]
    examined = {each.path: Examined(each.path, os.path.basename(each.path)) for each in entries}
    found = find(Listed("occluded_duke", ".", entries, OccludedDuke.structure.published, []), examined)
    assert kinds(found.findings) == {"shared": 1870} and not found.problems


def test_torchreids_own_data_set_is_checked_as_torchreid_reads_it(tmp_path):
    top = distinct(write_market(tmp_path))
    cut(top / "query" / "0001_c1s1_000451_03.jpg")
    found = check("market1501", tmp_path)
    # One name in query and gallery with the same identity and camera is no problem, other bytes or not.
    assert kinds(found.problems) == {"unreadable": 1, "counts": 3} and found.splits["train"] == (4, 2, 2)
    touch(top, "query/cover.jpg")
    found = check("market1501", tmp_path)
    assert set(kinds(found.problems)) == {"unreadable", "empty", "layout"}


def test_every_drawing_is_checked_against_its_own_spec_and_none_is_drawn(tmp_path):
    with pytest.raises(DPMError, match="nothing is drawn"):
        check_data("synthetic_occluded", tmp_path)
    assert list(tmp_path.iterdir()) == []
    folder = generate(SPEC, tmp_path, workers=1, verbose=False)
    found = check("synthetic_occluded", tmp_path)
    assert found.problems == [] and found.splits["train"][:2] == (6, 2)
    next((folder / "query").glob("*.jpg")).unlink()
    assert [finding.kind for finding in check("synthetic_occluded", tmp_path).problems] == ["counts"]


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"synthetic_occluded"}))
def test_every_data_set_of_the_plugin_can_be_checked(name, tmp_path):
    structure = DATASETS[name].structure
    for seed, (split, parts) in enumerate(structure.splits.items()):
        pid = "0002" if split == "train" else "0001"
        for part in parts:
            folder = tmp_path.joinpath(structure.folders[0], *(spellings[0] for spellings in part.path))
            draw_noise(folder / pid / f"{pid}_c{1 + seed}_f1.png", len(list(tmp_path.rglob("*.png"))))
    found = check(name, tmp_path)
    assert {finding.kind for finding in found.problems} <= {"counts", "one_camera"}
    assert set(found.splits) == set(structure.splits)


def test_a_plain_folder_is_searched_to_its_depth(tmp_path):
    draw_noise(tmp_path / "a" / "b" / "c.png", 1)
    shutil.copy(tmp_path / "a" / "b" / "c.png", tmp_path / "copy.PNG")
    touch(tmp_path, ".hidden.png", ".git/x.png", "notes.txt", "a/empty.jpg")
    found = check(tmp_path, plain=True)
    assert found.splits == {"images": (3, 0, 0)}
    assert kinds(found.findings) == {"duplicate": 1, "empty": 1, "other_files": 1}


def test_a_plain_folder_is_searched_for_the_formats_that_a_search_indexes(tmp_path):
    for seed, ending in enumerate(("bmp", "webp", "ppm", "tga", "jp2", "JPEG", "tiff", "gif")):
        draw_noise(tmp_path / f"a.{ending}", seed)
    touch(tmp_path, "notes.txt")
    names = sorted(os.path.basename(entry.path) for entry in list_folder(tmp_path).entries)
    assert names == sorted(list_images(tmp_path)) and len(names) == 8
    assert not check(tmp_path).problems


def test_a_folder_reading_itself_or_a_pipe_ends(tmp_path):
    draw_noise(tmp_path / "a.png", 1)
    (tmp_path / "again").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    found = check(tmp_path, plain=True)
    assert [(finding.kind, finding.detail) for finding in found.findings] == [("unreadable", "it is no file")]


def test_several_processes_find_what_one_finds_and_tell_the_time_left(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(checking, "FILES_AT_A_TIME", 3)
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for number, path in enumerate(paths):
        draw_noise(path, number % 7)
    cut(paths[3])
    lines = []
    found = examine_all(map(str, paths), 2, lines.append)
    assert found == {str(path): examine(str(path)) for path in paths} and found[str(paths[3])].finding
    assert lines[-1] == "20/20 images, 0:00 left"


def die(path):
    os._exit(9)


def test_a_process_that_dies_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(checking, "examine", die)
    with pytest.raises(DPMError, match="ended from outside or by the decoder"):
        examine_all(["a", "b"], 2, str)


def test_the_tool_exits_with_0_where_all_is_clean(duke, capsys):
    assert tool.main(["occluded_duke", "--root", str(duke.parent), "--jobs", "1"]) == 0
    printed = capsys.readouterr()
    assert "clean" in printed.out and "train" in printed.out and "16/16 images" in printed.err


def test_the_tool_exits_with_1_and_reports_all_in_json(duke, tmp_path, capsys, monkeypatch):
    cut(duke / "query" / QUERY)
    for number in range(12):
        touch(duke, f"bounding_box_test/0021_c{1 + number % 8}_f{number + 10}.jpg")
    report = tmp_path / "out" / "report.json"
    arguments = ["occluded_duke", str(duke / "query"), "--plain", "--root", str(duke.parent), "--json", str(report)]
    monkeypatch.setattr(sys, "argv", ["tool", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit, match="^1$"):
        runpy.run_path(str(TOOLS / "check_data.py"), run_name="__main__")
    content = json.loads(report.read_text(encoding="ascii"))
    assert content["clean"] is False and [each["problems"] for each in content["sets"]] == [14, 1]
    first = content["sets"][0]
    assert first["splits"]["train"] == {"images": 12, "identities": 3, "cameras": 2, "published": [12, 3]}
    (unreadable,) = (finding for finding in first["findings"] if finding["kind"] == "unreadable")
    assert unreadable["files"] == [f"query/{QUERY}"] and unreadable["problem"] is True
    assert {finding["kind"] for finding in first["findings"]} <= set(KINDS)
    printed = capsys.readouterr().out
    assert "12 files of zero bytes" in printed and "... and 2 more" in printed and "14 problems" in printed
    assert os.listdir(report.parent) == ["report.json"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["ocluded_duke"], "did you mean 'occluded_duke'"),
        (["occluded_duke", "--root", "{tmp}/none"], "does not exist"),
        (["market1501", "--root", "{tmp}"], "no folder"),
        (["{tmp}/empty"], "there is no image"),
        (["{tmp}/empty/..", "--jobs", "0"], "at least 1"),
        (["{tmp}", "--json", "{tmp}/a.png/x.json"], "cannot be written"),
        ([], "required"),
        (["{tmp}", "--job"], "expected one argument"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    draw_noise(tmp_path / "a.png", 1)
    before = sorted(tmp_path.rglob("*"))
    try:
        code = tool.main([text.format(tmp=tmp_path) for text in arguments])
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err.splitlines()[-1]
    assert code == 2 and error.startswith("error: ") and message in error
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interruption_leaves_no_half_report(duke, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "as_json", stop)
    report = tmp_path / "r" / "x.json"
    assert tool.main(["occluded_duke", "--root", str(duke.parent), "--jobs", "1", "--json", str(report)]) == 130
    assert not report.parent.exists() or os.listdir(report.parent) == []
