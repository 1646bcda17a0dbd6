"""Occluded-Duke from the user's zip: complete or an error, resumable, never outside its folder."""

import os
import runpy
import stat
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

from dpm_plugin.apps import prepare_occduke
from dpm_plugin.apps.prepare_occduke import SPLITS, check_splits, main, prepare, read_list
from dpm_plugin.data.datasets import OccludedDuke
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.progress import Progress
from helpers.data import SHARED_LISTS

NAMES = {
    "train": ["0001_c2_f0046182.jpg", "0002_c1_f0000001.jpg"],
    "query": ["0019_c1_f0051230.jpg", "0020_c3_f0000002.jpg"],
    "gallery": ["0019_c1_f0051230.jpg", "0021_c8_f0000003.jpg", "0022_c4_f0000004.jpg"],
}
#: Folder in the zip -> names; a query lies in the zip's gallery and a gallery image in its query folder.
MEMBERS = {
    "bounding_box_train": [*NAMES["train"], "0003_c1_f0000009.jpg"],
    "query": ["0020_c3_f0000002.jpg", "0022_c4_f0000004.jpg"],
    "bounding_box_test": ["0019_c1_f0051230.jpg", "0021_c8_f0000003.jpg"],
}


def content(folder, name):
    return f"picture {folder}/{name} ".encode() * 20


@pytest.fixture
def lists(tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    for split, names in NAMES.items():
        (folder / f"{split}.list").write_text("\n".join(names) + "\n")
    return folder


def write_zip(path, skip=(), extra=(), top="DukeMTMC-reID/"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{top}README.md", "text")
        for folder, names in MEMBERS.items():
            for name in names:
                if name not in skip:
                    archive.writestr(f"{top}{folder}/{name}", content(folder, name))
        for entry, data in extra:
            archive.writestr(entry, data)
    return path


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "DukeMTMC-reID.zip")


def silent(line):
    pass


def files_below(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def expected():
    return {
        f"Occluded_Duke/{split.folder}/{name}": next(
            content(folder, name) for folder in split.sources if name in MEMBERS[folder]
        )
        for split in SPLITS
        for name in NAMES[split.name]
    }


@pytest.mark.parametrize("top", ["DukeMTMC-reID/", "", "a/b/"])
def test_the_listed_images_and_no_others_are_written_with_their_bytes(top, lists, tmp_path):
    archive = write_zip(tmp_path / "duke.zip", top=top)
    report = prepare(archive, lists, tmp_path / "out", show=silent)
    assert files_below(tmp_path / "out") == expected()
    assert (report.counts, report.written, report.kept) == ({"train": 2, "query": 2, "gallery": 3}, 7, 0)


def test_the_result_loads_as_the_data_set(lists, archive, tmp_path):
    prepare(archive, lists, tmp_path / "out", show=silent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = OccludedDuke(str(tmp_path / "out"), mode="train", verbose=False)
    assert [len(dataset.train), len(dataset.query), len(dataset.gallery)] == [2, 2, 3]


def test_a_second_run_keeps_intact_files_and_repairs_damaged_ones(lists, archive, tmp_path):
    out = tmp_path / "out"
    prepare(archive, lists, out, show=silent)
    short, changed = (out / "Occluded_Duke/bounding_box_train" / name for name in NAMES["train"])
    gone, kept = (out / "Occluded_Duke/query" / name for name in NAMES["query"])
    before = kept.stat().st_mtime_ns
    short.write_bytes(short.read_bytes()[:5])
    changed.write_bytes(changed.read_bytes()[::-1])
    gone.unlink()
    report = prepare(archive, lists, out, show=silent)
    assert (report.written, report.kept) == (3, 4)
    assert files_below(out) == expected() and kept.stat().st_mtime_ns == before


def test_an_interrupted_run_leaves_no_half_file_and_can_go_on(lists, archive, tmp_path, monkeypatch):
    rename, calls = os.replace, []

    def interrupted(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    out = tmp_path / "out"
    assert main([str(archive), "--lists", str(lists), "--out", str(out)]) == 130
    monkeypatch.setattr(os, "replace", rename)
    half = files_below(out)
    assert len(half) == 2 and half.items() <= expected().items()
    assert prepare(archive, lists, out, show=silent).kept == 2
    assert files_below(out) == expected()


def test_missing_images_are_counted_and_named_and_nothing_is_written(lists, tmp_path, capsys):
    archive = write_zip(tmp_path / "part.zip", skip=(NAMES["train"][0], NAMES["gallery"][1]))
    assert main([str(archive), "--lists", str(lists), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "2 of 7 listed images" in error and NAMES["train"][0] in error and NAMES["gallery"][1] in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def damage_a_member(archive):
    packed = content("query", NAMES["query"][1])[:30]
    archive.write_bytes(archive.read_bytes().replace(packed, b"x" * 30))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda p: p.write_bytes(b"no zip"), "no complete zip file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-40]), "no complete zip file"),
        (lambda p: p.unlink(), "cannot read"),
        (damage_a_member, "is damaged"),
    ],
)
def test_a_bad_zip_is_an_error_in_one_line_with_exit_code_2(spoil, message, lists, archive, tmp_path, capsys):
    spoil(archive)
    assert main([str(archive), "--lists", str(lists), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and archive.name in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "entry", ["../evil.jpg", "/etc/evil.jpg", "DukeMTMC-reID/../../evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"]
)
def test_a_zip_with_a_path_out_of_its_folder_is_refused(entry, lists, tmp_path):
    archive = write_zip(tmp_path / "evil.zip", extra=[(entry, "x")])
    with pytest.raises(DPMError, match="leads elsewhere"):
        prepare(archive, lists, tmp_path / "out", show=silent)
    assert not (tmp_path / "out").exists()


def test_a_zip_with_a_link_is_refused(lists, tmp_path):
    link = zipfile.ZipInfo("DukeMTMC-reID/query/0020_c3_f0000002.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = write_zip(tmp_path / "link.zip", skip=("0020_c3_f0000002.jpg",), extra=[(link, "/etc/passwd")])
    with pytest.raises(DPMError, match="holds the link"):
        prepare(archive, lists, tmp_path / "out", show=silent)


@pytest.mark.parametrize(
    "line, message",
    [
        ("../0001_c1_f0000001.jpg", "no name like"),
        ("0001_c1_f/../0000001.jpg", "no name like"),
        ("/0001_c1_f0000001.jpg", "no name like"),
        ("0001_c9_f0000001.jpg", "no name like"),
        ("0001_c2_f0046182.jpg", "twice"),
    ],
)
def test_a_list_with_a_path_or_a_repetition_is_refused(line, message, lists, archive, tmp_path):
    with (lists / "train.list").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DPMError, match=message):
        prepare(archive, lists, tmp_path / "out", show=silent)
    assert not (tmp_path / "out").exists()


def test_missing_empty_and_overlapping_lists_are_refused(lists, archive, tmp_path):
    (lists / "gallery.list").write_text(NAMES["train"][0])
    with pytest.raises(DPMError, match=f"1 names both in training and in test, e.g. {NAMES['train'][0]}"):
        prepare(archive, lists, tmp_path / "out", show=silent)
    (lists / "gallery.list").write_text("\n")
    with pytest.raises(DPMError, match="gallery.list' is empty"):
        prepare(archive, lists, tmp_path / "out", show=silent)
    (lists / "gallery.list").unlink()
    with pytest.raises(DPMError, match="gallery.list' cannot be read"):
        prepare(archive, lists, tmp_path / "out", show=silent)


def test_a_target_folder_that_is_a_link_is_refused_and_a_linked_file_is_replaced(lists, archive, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = tmp_path / "out" / "Occluded_Duke"
    target.mkdir(parents=True)
    (target / "query").symlink_to(elsewhere)
    with pytest.raises(DPMError, match="is a link"):
        prepare(archive, lists, tmp_path / "out", show=silent)
    (target / "query").unlink()
    (target / "query").mkdir()
    outside = elsewhere / "outside.jpg"
    outside.write_bytes(b"mine")
    name = NAMES["query"][0]
    (target / "query" / name).symlink_to(outside)
    (target / "query" / f".{name}.part").symlink_to(outside)
    prepare(archive, lists, tmp_path / "out", show=silent)
    assert outside.read_bytes() == b"mine" and files_below(tmp_path / "out") == expected()
    assert not (target / "query" / name).is_symlink()


def test_a_full_disk_is_an_error_that_says_what_to_do(lists, archive, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DPMError, match=r"cannot make .*No space left on device.*run again"):
        prepare(archive, lists, tmp_path / "out", show=silent)


def test_an_unwritable_target_is_an_error(lists, archive, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DPMError, match="cannot make the folder"):
        prepare(archive, lists, tmp_path / "out", show=silent)


def test_the_tool_prints_counts_and_exits_with_0(lists, archive, tmp_path, capsys, monkeypatch):
    stray = tmp_path / "out/Occluded_Duke/query/9999_c1_f0000001.jpg"
    stray.parent.mkdir(parents=True)
    stray.touch()
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = [str(archive), "--lists", str(lists), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["tool", *arguments])
    tool = Path(prepare_occduke.__file__).parents[2] / "tools" / "prepare_occduke.py"
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(tool), run_name="__main__")
    out, err = capsys.readouterr()
    assert caught.value.code == 0
    assert "train 2, query 2, gallery 3 images; 7 written, 0 already there" in out
    assert "published are train 15,618" in out and "1 other images" in out
    assert "7/7 images" in err and stray.exists()


def test_progress_tells_the_time_left_and_is_not_shown_at_every_step(monkeypatch):
    lines, times = [], iter([0, 1, 10, 11, 20])
    monkeypatch.setattr("dpm_plugin.utils.progress.monotonic", lambda: next(times))
    progress = Progress(100, "images", lines.append)
    for done in (1, 10, 11, 100):
        progress.at(done)
    assert lines == ["10/100 images, 1:30 left", "100/100 images, 0:00 left"]


@pytest.mark.skipif(not SHARED_LISTS.is_dir(), reason="the published lists are not beside the repository")
def test_the_published_lists_are_read_and_1870_queries_are_also_in_the_gallery():
    names = {split.name: read_list(SHARED_LISTS / split.list_file) for split in SPLITS}
    check_splits(names, SHARED_LISTS)
    assert [len(names[split]) for split in ("train", "query", "gallery")] == [15618, 2210, 17661]
    assert len(set(names["query"]) & set(names["gallery"])) == 1870
