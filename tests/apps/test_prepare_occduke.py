"""Occluded-Duke from the user's zip: complete or an error, resumable, never outside its folder."""

import os
import runpy
import shutil
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from dpm_plugin.apps import prepare_occduke
from dpm_plugin.apps.prepare_occduke import SPLITS, prepare, read_lists
from dpm_plugin.commands import prepare_occduke as tool
from dpm_plugin.data.datasets import OccludedDuke
from dpm_plugin.utils.errors import DPMError
from helpers.data import SHARED_LISTS
from helpers.scripts import TOOLS

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
QUERY = NAMES["query"][1]


def content(folder, name):
    return f"image {folder}/{name} ".encode() * 20


def written():
    """{path below --out: bytes} of a complete data set."""
    return {
        f"Occluded_Duke/{sources[0]}/{name}": next(content(at, name) for at in sources if name in MEMBERS[at])
        for split, sources in SPLITS.items()
        for name in NAMES[split]
    }


@pytest.fixture
def lists(tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    for split, names in NAMES.items():
        (folder / f"{split}.list").write_text("\n".join(names) + "\n")
    return folder


@pytest.fixture
def make_zip(tmp_path):
    """``make_zip(skip, extra, top)``: a DukeMTMC-reID.zip without the names of ``skip``, with the entries ``extra``."""

    def make(skip=(), extra=(), top="DukeMTMC-reID/"):
        with zipfile.ZipFile(tmp_path / "DukeMTMC-reID.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{top}README.md", "text")
            for folder, names in MEMBERS.items():
                for name in names:
                    if name not in skip:
                        archive.writestr(f"{top}{folder}/{name}", content(folder, name))
            for entry, data in extra:
                archive.writestr(entry, data)
        return tmp_path / "DukeMTMC-reID.zip"

    return make


@pytest.fixture
def made(lists, tmp_path):
    """``made(archive)``: what :func:`prepare` makes of it in the folder "out"."""
    return lambda archive: prepare(archive, lists, tmp_path / "out", show=str)


@pytest.fixture
def refused(made, tmp_path):
    """``refused(archive, message)``: an error in one line with these words, and no image is left."""

    def refuse(archive, message):
        with pytest.raises(DPMError, match=message) as caught:
            made(archive)
        assert "\n" not in str(caught.value) and not list(tmp_path.glob("out/**/*.jpg"))

    return refuse


def files_below(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.filterwarnings("ignore:.*published are")
@pytest.mark.parametrize("top", ["DukeMTMC-reID/", "", "a/b/"])
def test_the_listed_images_and_no_others_are_written_and_load_as_the_data_set(top, make_zip, made, tmp_path):
    done = made(make_zip(top=top))
    assert files_below(tmp_path / "out") == written()
    assert (done.counts, done.written, done.kept) == ({"train": 2, "query": 2, "gallery": 3}, 7, 0)
    dataset = OccludedDuke(str(tmp_path / "out"), mode="train", verbose=False)
    assert [len(dataset.train), len(dataset.query), len(dataset.gallery)] == [2, 2, 3]


def test_a_second_run_keeps_intact_files_and_repairs_damaged_ones(make_zip, made, tmp_path):
    made(make_zip())
    short, changed = (tmp_path / "out/Occluded_Duke/bounding_box_train" / name for name in NAMES["train"])
    gone, kept = (tmp_path / "out/Occluded_Duke/query" / name for name in NAMES["query"])
    before = kept.stat().st_mtime_ns
    short.write_bytes(short.read_bytes()[:5])
    changed.write_bytes(changed.read_bytes()[::-1])
    gone.unlink()
    done = made(make_zip())
    assert (done.written, done.kept) == (3, 4)
    assert files_below(tmp_path / "out") == written() and kept.stat().st_mtime_ns == before


def test_an_interrupted_run_leaves_no_half_file_and_can_go_on(lists, make_zip, made, tmp_path, monkeypatch):
    rename, calls = os.replace, []

    def interrupted(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    assert tool.main([str(make_zip()), "--lists", str(lists), "--out", str(tmp_path / "out")]) == 130
    monkeypatch.setattr(os, "replace", rename)
    half = files_below(tmp_path / "out")
    assert len(half) == 2 and half.items() <= written().items()
    assert made(make_zip()).kept == 2 and files_below(tmp_path / "out") == written()


def test_a_target_folder_that_is_a_link_is_refused_and_a_linked_file_is_replaced(make_zip, made, tmp_path):
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "out" / "Occluded_Duke"
    elsewhere.mkdir()
    target.mkdir(parents=True)
    (target / "query").symlink_to(elsewhere)
    with pytest.raises(DPMError, match="is a link"):
        made(make_zip())
    (target / "query").unlink()
    (target / "query").mkdir()
    outside = elsewhere / "outside.jpg"
    outside.write_bytes(b"mine")
    for name in (QUERY, f".{QUERY}.part"):
        (target / "query" / name).symlink_to(outside)
    made(make_zip())
    assert outside.read_bytes() == b"mine" and files_below(tmp_path / "out") == written()
    assert not (target / "query" / QUERY).is_symlink()


def test_a_full_disk_or_an_unwritable_target_is_an_error_that_says_what_to_do(make_zip, refused, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    refused(make_zip(), r"cannot make .*No space left on device.*run again")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").touch()
    refused(make_zip(), "cannot make the folder")


def damaged(packing):
    """What packs a zip anew and overwrites a part of a member."""

    def spoil(archive):
        with zipfile.ZipFile(archive) as opened:
            members = {name: opened.read(name) for name in opened.namelist()}
        with zipfile.ZipFile(archive, "w", packing) as opened:
            for name, data in members.items():
                opened.writestr(name, data)
            offset = opened.getinfo(f"DukeMTMC-reID/bounding_box_train/{NAMES['train'][0]}").header_offset
        whole = bytearray(archive.read_bytes())
        whole[offset + 90 : offset + 110] = bytes(20)
        archive.write_bytes(whole)

    return spoil


def lie_about_a_size(archive):
    size = len(content("bounding_box_train", NAMES["train"][0])).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (100).to_bytes(4, "little")))


def overlap(archive):
    """A directory that names the same bytes again and again is small on disk, without end unpacked."""
    with zipfile.ZipFile(archive) as opened:
        offset = opened.infolist()[2].header_offset
    whole = bytearray(archive.read_bytes())
    first = whole.index(b"PK\1\2", whole.index(b"PK\1\2") + 1)  # image in the directory; 42 to 46 say where it lies
    whole[first + 42 : first + 46] = offset.to_bytes(4, "little")
    archive.write_bytes(whole)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda path: path.write_bytes(b"no zip"), "no complete zip file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "no complete zip file"),
        (lambda path: path.unlink(), "cannot read"),
        *((damaged(packing), "is damaged") for packing in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
        (lie_about_a_size, "is damaged"),
        (overlap, "is damaged"),
    ],
)
def test_a_bad_zip_is_named(spoil, message, make_zip, refused):
    archive = make_zip()
    before = archive.read_bytes()
    spoil(archive)
    assert not archive.exists() or archive.read_bytes() != before
    refused(archive, f"{message}.*{archive.name}|{archive.name}.*{message}")


EVIL = "../evil.jpg", "/etc/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "DukeMTMC-reID/../../evil.jpg"
SPECIAL = stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK


def special(kind):
    """An entry for a query, of a kind of file."""
    info = zipfile.ZipInfo(f"DukeMTMC-reID/query/{QUERY}")
    info.external_attr, info.compress_type = (kind | 0o644) << 16, zipfile.ZIP_DEFLATED
    return info


@pytest.mark.parametrize(
    "entry, message",
    [
        *((path, "leads elsewhere") for path in EVIL),
        (special(stat.S_IFLNK), "holds the link"),
        *((special(kind), "neither file nor folder") for kind in SPECIAL),
        (special(stat.S_IFREG), "which no image has"),  # it unpacks to thousands of times its size
        (f"other/query/{NAMES['gallery'][2]}", "two different"),
    ],
)
def test_a_zip_with_an_entry_that_no_zip_of_images_has_is_refused(entry, message, make_zip, refused, tmp_path):
    refused(make_zip(skip=[QUERY], extra=[(entry, bytes(10**6))]), message)
    assert not (tmp_path / "out").exists()


def test_images_that_are_too_large_together_are_refused(make_zip, refused, monkeypatch):
    monkeypatch.setattr(prepare_occduke, "LARGEST_TOTAL", 8)
    refused(make_zip(), r"have [\d,]+ bytes together, more than 8")


def test_missing_images_are_counted_and_named_and_nothing_is_written(lists, make_zip, tmp_path, capsys):
    archive = make_zip(skip=(NAMES["train"][0], NAMES["gallery"][1]))
    assert tool.main([str(archive), "--lists", str(lists), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "2 of 7 listed images" in error and NAMES["train"][0] in error and NAMES["gallery"][1] in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "split, text, message",
    [
        ("train", "../0001_c1_f0000001.jpg", "no name like"),
        ("train", "0001_c1_f/../0000001.jpg", "no name like"),
        ("train", "/0001_c1_f0000001.jpg", "no name like"),
        ("train", "0001_c9_f0000001.jpg", "no name like"),
        ("train", f"{QUERY}\n0009_c1_f0000001.jpg\n{QUERY}", f"names {QUERY} twice"),
        ("gallery", NAMES["train"][0], f"1 names both in training and in test, e.g. {NAMES['train'][0]}"),
        ("gallery", "\n", "gallery.list' is empty"),
        ("gallery", None, "gallery.list' cannot be read"),
    ],
)
def test_lists_with_paths_or_repetitions_and_missing_ones_are_refused(
    split, text, message, lists, make_zip, refused, tmp_path
):
    path = lists / f"{split}.list"
    path.unlink()
    if text is not None:
        path.write_text(text)
    refused(make_zip(), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not SHARED_LISTS.is_dir(), reason="the published lists are not beside the repository")
def test_the_published_lists_are_read_and_1870_queries_are_also_in_the_gallery():
    names = read_lists(SHARED_LISTS)
    assert [len(names[split]) for split in ("train", "query", "gallery")] == [15618, 2210, 17661]
    assert len(set(names["query"]) & set(names["gallery"])) == 1870


def test_the_tool_prints_counts_and_exits_with_0(lists, make_zip, tmp_path, capsys, monkeypatch):
    stray = tmp_path / "out/Occluded_Duke/query/9999_c1_f0000001.jpg"
    stray.parent.mkdir(parents=True)
    stray.touch()
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = [str(make_zip()), "--lists", str(lists), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["tool", *arguments])
    with pytest.raises(SystemExit, match="^0$"):
        runpy.run_path(str(TOOLS / "prepare_occduke.py"), run_name="__main__")
    out, err = capsys.readouterr()
    assert "train 2, query 2, gallery 3 images; 7 written, 0 already there" in out
    assert "published are train 15,618" in out and "1 other images" in out
    assert "7/7 images" in err and stray.exists()
