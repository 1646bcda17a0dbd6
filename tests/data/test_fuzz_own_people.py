"""Broken tables and folders of your own people: one line that says what is wrong, and nothing else."""

import shutil

from hypothesis import strategies as st

from dpm_plugin.apps.check_data.listing import list_people
from dpm_plugin.data.own import OwnDataset, read_people
from helpers.data import touch
from helpers.fuzz import Refused, fuzz, outcome, sizes  # noqa: F401, a fixture

IMAGES = ["a/1.jpg", "a/2_c1.jpg", "b/1.jpg", "b/2.jpg", "0001_c1.jpg"]
HOSTILE = [
    "",
    " ",
    "-1",
    "../a/1.jpg",
    "/etc/passwd",
    "a\0",
    "\n",
    '"',
    "'",
    ",",
    "\ufeff",
    "\u202e",
    "9" * 5000,
    "٣",
    "./a/1.jpg",
]
cells = st.sampled_from([*IMAGES, *HOSTILE, "ann", "bob", "7", "07", "train", "query", "gallery", "test"]) | st.text(
    max_size=6
)
headers = st.sampled_from(
    [
        "path,pid",
        "path,pid,camid,split",
        "path,pid,split",
        "pid,path",
        "Path , PID",
        "path;pid",
        "# images: .\npath,pid",
    ]
)
lines = st.lists(cells, max_size=5).map(",".join)
tables = st.builds(
    lambda header, rows, end, encoding: end.join([header, *rows]).encode(encoding, "replace"),
    headers,
    st.lists(lines | st.builds("{},{},{},{}".format, st.sampled_from(IMAGES), cells, cells, cells), max_size=8),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "latin-1", "utf-16"]),
) | st.binary(max_size=60)
names = st.sampled_from(
    [
        *"ab",
        "train",
        "query",
        "gallery",
        "bounding_box_train",
        "-1",
        ".hidden",
        "é",
        "\n",
        "x.jpg",
        "0001_c1.jpg",
        "0002_c2.png",
        "t.txt",
    ]
)
folders = st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=10)


def read(name, root):
    """A data set of every mode, and what tools/check_data.py lists; a mistake is one line."""
    people = read_people(name, root)
    list_people(name, root, None)
    people.check()
    assert all(row.split for row in people.rows) and "-1" not in people.persons
    sets = {split: {row.pid for row in people.of(split)} for split in ("train", "query", "gallery")}
    assert not sets["train"] & (sets["query"] | sets["gallery"]) and sets["query"] <= sets["gallery"]
    for mode in filter(sets.get, sets):
        assert len(OwnDataset(people, mode=mode, verbose=False)) == len(people.of(mode))


def check_one_line(name, root):
    found = outcome(read, name, root)
    if isinstance(found, Refused):
        assert found.isprintable() and len(found) < 1000 and found, found


@sizes(60, 2000)
def test_any_table_is_read_or_refused_in_one_line(fuzz, tmp_path):  # noqa: F811
    touch(tmp_path, *IMAGES)

    def check(content):
        (tmp_path / "people.csv").write_bytes(content)
        check_one_line("people.csv", tmp_path)

    fuzz(tables, check)


@sizes(60, 2000)
def test_any_folder_is_read_or_refused_in_one_line(fuzz, tmp_path):  # noqa: F811
    def check(paths):
        shutil.rmtree(tmp_path / "people", ignore_errors=True)
        (tmp_path / "people").mkdir()
        for path in paths:
            place = tmp_path / "people" / path
            if not any(parent.is_file() for parent in place.parents) and not place.exists():
                touch(tmp_path / "people", path)
        check_one_line("people", tmp_path)

    fuzz(folders, check)
