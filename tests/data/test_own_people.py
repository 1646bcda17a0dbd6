"""Your own people: what tables and folders are read as, how they are split, and one line for what is wrong."""

import pytest

from dpm_plugin.data.own import OwnOptions, read_people
from dpm_plugin.data.own.table import write_splits
from dpm_plugin.utils.errors import DPMError
from helpers.data import draw, touch
from helpers.own import draw_people, problems, write_csv

HEADER = ("path", "pid", "camid", "split")
GOOD = [
    ("a/1.jpg", "ann", "door", "train"),
    ("a/2.jpg", "ann", "yard", "train"),
    ("b/1.jpg", "bob", "door", "query"),
    ("b/2.jpg", "bob", "yard", "gallery"),
]


def table(folder, rows=(), header=HEADER):
    """A table in ``folder`` of the good rows and ``rows``, all of whose images are there."""
    touch(folder, "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg")
    return write_csv(folder / "people.csv", header, [*GOOD, *rows])


def splits(people):
    return {split: sorted({row.pid for row in people.of(split)}) for split in ("train", "query", "gallery")}


def test_a_table_is_read_with_cameras_and_persons_of_any_text_numbered_in_sorted_order(tmp_path):
    rows = [(f"c/{pid}.jpg", pid, "2", "train") for pid in ("10", "9", "Zoë, née X")]
    touch(tmp_path, *(row[0] for row in rows))
    people = read_people(str(table(tmp_path, rows)))
    assert not people.problems and not people.was_split and people.folder == str(tmp_path)
    assert list(people.persons.items()) == [("9", 0), ("10", 1), ("Zoë, née X", 2), ("ann", 3), ("bob", 4)]
    assert people.cameras == {"2": 0, "door": 1, "yard": 2}
    assert splits(people) == {"train": ["10", "9", "Zoë, née X", "ann"], "query": ["bob"], "gallery": ["bob"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_blanks_capitals_empty_lines_and_a_byte_order_mark_are_no_mistakes(tmp_path, encoding):
    touch(tmp_path, "é/1.jpg", "é/2.jpg", "b/1.jpg", "b/2.jpg")
    text = "Path, PID\r\n\r\né/1.jpg, 1\r\n./é/2.jpg ,1\r\n,\r\nb/1.jpg,2\r\nb/2.jpg,2\r\n"
    (tmp_path / "p.csv").write_bytes(text.encode(encoding))
    people = read_people("p.csv", tmp_path)
    assert not people.problems and not people.has_cameras and people.was_split
    assert [row[:3] for row in people.rows if row.pid == "1"][0] == ("é/1.jpg", "1", None)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "line 1: no column 'path'"),
        ("path;pid\na.jpg;1\n", "line 1: columns are separated by ';'; save the table with commas"),
        ("path\tpid\na.jpg\t1\n", "separated by '\\t'"),
        ("path,pidd\na.jpg,1\n", "line 1: unknown column 'pidd'; did you mean 'pid'?"),
        ("path,name\na.jpg,1\n", "line 1: unknown column 'name'; columns are path, pid, camid, split"),
        ("path,camid\na.jpg,1\n", "line 1: no column 'pid'"),
        ("path,pid,pid\na.jpg,1,1\n", "line 1: column 'pid' is there twice"),
        (",path,pid\n0,a.jpg,1\n", "line 1: column 1 has no name (pandas: index=False)"),
        ("path,pid\n", "has no image below its header"),
        ('path,pid\n"a.jpg,1\n', "line 2: no valid CSV"),
        ("path,pid\n1,c/1.jpg\n2,a/1.jpg\n", "line 2: 'pid' is 'c/1.jpg', an image; are columns mixed up?"),
        ("path,pid,camid\n1,2,c/1.jpg\n", "'camid' is 'c/1.jpg', an image"),
        ("# images: nowhere\npath,pid\na.jpg,1\n", "line 1: there is no folder"),
        ("path,pid\né.jpg,1\n".encode("latin-1"), "is no UTF-8 text; save it as UTF-8"),
        ("path,pid\na.jpg,1\n".encode("utf-16"), "is no UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\x00", "is no UTF-8 text"),
    ],
)
def test_what_is_no_such_table_is_one_line_that_says_where_and_what_to_do(tmp_path, content, message):
    (tmp_path / "p.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DPMError) as caught:
        read_people("p.csv", tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row, message",
    [
        (("../x.jpg", "c", "1", "train"), "line 6: path '../x.jpg' leads out of the folder"),
        (("a/../../x.jpg", "c", "1", "train"), "leads out of the folder"),
        (("/etc/x.jpg", "c", "1", "train"), "line 6: path '/etc/x.jpg' is absolute"),
        (("c/1.jpg", "", "1", "train"), "line 6: 'pid' is empty; fill it in"),
        (("c/1.jpg", "c", "", "train"), "line 6: 'camid' is empty; fill it in, or remove the column"),
        (("c/1.jpg", "c", "1", "galery"), "line 6: unknown split 'galery'; did you mean 'gallery'?"),
        (("c/1.jpg", "c", "1"), "line 6: it has 3 cells, the first line has 4"),
        (("c/9.jpg", "c", "1", "train"), "there is no image 'c/9.jpg' (line 6)"),
        (("a/1.jpg", "ann", "door", "train"), "image 'a/1.jpg' (line 6) stands in line 2 already"),
        (("c\0.jpg", "c", "1", "train"), "letters that cannot be printed"),
        (
            ("c/1.jpg", "ann", "1", "gallery"),
            "person 'ann' is in training, 'a/1.jpg' (line 2), and in gallery, 'c/1.jpg'",
        ),
        (
            ("c/1.jpg", "carl", "1", "query"),
            "query 'c/1.jpg' (line 6) of person 'carl' has no gallery image of another",
        ),
    ],
)
def test_a_bad_line_of_a_table_is_named_by_its_number(tmp_path, row, message):
    path = table(tmp_path, [row])
    found = read_people(str(path))
    assert len(found.problems) == 1 and message in found.problems[0].text
    with pytest.raises(DPMError, match="people.csv': ") as caught:
        found.check()
    assert "\n" not in str(caught.value)


def test_a_cell_of_thousands_of_letters_is_cut_short(tmp_path):
    found = problems(table(tmp_path, [("9" * 5000, "8" * 5000, "1", "query")]))
    assert len(found) == 2 and all(len(text) < 700 for _, text in found)


def test_several_problems_are_counted(tmp_path):
    found = read_people(str(table(tmp_path, [("c/8.jpg", "c", "1", "train"), ("c/9.jpg", "c", "1", "train")])))
    with pytest.raises(DPMError, match=r"c/8.jpg.*and 1 more: tools/check_data.py lists all"):
        found.check()


def test_half_a_test_is_refused(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/2.jpg")
    path = write_csv(tmp_path / "p.csv", HEADER, [("a/1.jpg", "a", "1", "query"), ("a/2.jpg", "b", "1", "train")])
    assert "but no gallery image" in problems(path)[0][1]


def test_a_query_may_stand_again_in_the_gallery_of_the_same_labels(tmp_path):
    assert not problems(table(tmp_path, [("b/1.jpg", "bob", "door", "gallery")]))
    assert "stands in line 4 already" in problems(table(tmp_path, [("b/1.jpg", "bob", "yard", "gallery")]))[0][1]


@pytest.mark.parametrize("cameras", [0, 2])
def test_people_not_images_are_split_by_share_and_seed(tmp_path, cameras):
    draw_people(tmp_path / "people", 20, 4, cameras)
    options = OwnOptions(r"_c(?P<camid>\d)" if cameras else OwnOptions.pattern)
    people = read_people("people", tmp_path, options)
    found = splits(people)
    assert people.was_split and not people.problems
    assert (
        len(found["query"]) == 5
        and found["query"] == found["gallery"]
        and not set(found["train"]) & set(found["query"])
    )
    assert len(people.of("query")) == 5 * max(cameras, 1) and len(people.of("gallery")) == 5 * 4
    assert splits(read_people("people", tmp_path, options)) == found
    others = [splits(read_people("people", tmp_path, OwnOptions(options.pattern, 0.25, seed))) for seed in range(1, 4)]
    assert found not in others
    draw_people(tmp_path / "people", 21, 4, cameras)  # one more
    assert len(set(splits(read_people("people", tmp_path, options))["query"]) & set(found["query"])) >= 4


def test_a_share_of_none_or_all_is_no_test_or_no_training(tmp_path):
    draw_people(tmp_path)
    assert not read_people(str(tmp_path), "", OwnOptions(test_share=0)).of("query")
    assert not read_people(str(tmp_path), "", OwnOptions(test_share=1)).of("train")


def test_a_person_seen_by_one_camera_is_never_chosen_for_the_test(tmp_path):
    draw_people(tmp_path, 6, 4, cameras=2)
    for person in range(6, 12):
        for number in range(3):
            draw(tmp_path / f"p{person}" / f"{number}_c0.jpg")
    people = read_people(str(tmp_path), "", OwnOptions(r"_c(?P<camid>\d)", 0.5))
    assert not people.problems and splits(people)["query"] == [f"p{person}" for person in range(6)]
    (problem,) = read_people(str(tmp_path), "", OwnOptions(r"_c(?P<camid>\d)", 0.6)).problems
    assert "a test of 7 of 12 people (data.own.test_share 0.6) needs as many with images of two cameras" in problem.text


def test_a_person_with_one_image_is_named_where_people_are_split(tmp_path):
    draw_people(tmp_path)
    draw(tmp_path / "solo" / "1.jpg")
    assert problems(tmp_path) == [
        ("one_image", "person 'solo' has one image, 'solo/1.jpg'; add another, or take it away")
    ]


def test_the_split_is_written_as_a_table_that_reads_as_the_same_people(tmp_path):
    for place, cameras in (("own", 2), ("bare", 0)):
        draw_people(tmp_path / place, cameras=cameras)
    options = OwnOptions(r"_c(?P<camid>\d)")
    everyone = [read_people("own", tmp_path, options), read_people("bare", tmp_path)]
    write_splits(everyone, tmp_path / "log")
    for people, name in zip(everyone, ("split.csv", "split-2.csv")):
        again = read_people(name, tmp_path / "log")
        assert (again.folder, again.persons, again.cameras) == (people.folder, people.persons, people.cameras)
        plain = lambda rows: [row._replace(line=0) for row in rows]
        assert all(plain(again.of(split)) == people.of(split) for split in ("train", "query", "gallery"))
        assert not again.was_split and not again.problems


def test_folders_of_splits_hold_people_or_names_with_market1501s_folders_too(tmp_path):
    for split in ("bounding_box_train", "query", "bounding_box_test"):
        person = 1 if split == "bounding_box_train" else 2
        touch(tmp_path / split, f"000{person}_c{1 + (split == 'query')}s1_000451_03.jpg", "-1_c1s1_1.jpg", "Thumbs.db")
    touch(tmp_path, "gt_bbox/1.jpg", "readme.txt")
    people = read_people(str(tmp_path))
    assert not people.problems and splits(people) == {"train": ["0001"], "query": ["0002"], "gallery": ["0002"]}
    assert people.cameras == {"1": 0, "2": 1}
    assert people.notes == [
        "not used, beside bounding_box_train, query, bounding_box_test: gt_bbox",
        "3 images of person -1 are not used",
    ]


def test_names_in_the_folders_of_people_tell_cameras_where_all_do(tmp_path):
    touch(tmp_path, *(f"{pid}/{pid}_c{camera}s1_1.jpg" for pid in ("0001", "0002") for camera in (1, 2)))
    assert read_people(str(tmp_path)).cameras == {"1": 0, "2": 1}
    touch(tmp_path, "0002/selfie.jpg")
    people = read_people(str(tmp_path))
    assert not people.has_cameras and not people.problems
    assert people.notes == ["1 of 5 names do not tell a camera, such as '0002/selfie.jpg': none is read"]


def test_a_pattern_that_is_set_reads_every_name_at_any_depth(tmp_path):
    touch(tmp_path, *(f"day{day}/{pid}@{day}.jpg" for day in (1, 2) for pid in ("ann", "bob", "carl")))
    people = read_people(str(tmp_path), "", OwnOptions(r"^(?P<pid>\w+)@(?P<camid>\d)", 0.34))
    assert list(people.persons) == ["ann", "bob", "carl"] and list(people.cameras) == ["1", "2"]
    touch(tmp_path, "day1/oops.jpg")
    people = read_people(str(tmp_path), "", OwnOptions(r"^(?P<pid>\w+)@(?P<camid>\d)", 0.34))
    assert [problem.kind for problem in people.problems] == ["odd_name"] and "day1/oops.jpg" in people.problems[0].text


@pytest.mark.parametrize(
    "files, message",
    [
        ([], "there is no image in"),
        (["notes.txt", "a/notes.txt"], "there is no image in"),
        (
            ["a/1.jpg", "a/2.jpg", "b/notes.txt", "c/1.jpg", "c/2.jpg"],
            "folder 'b' has no image; add some, or remove it",
        ),
        (["a/1.jpg", "a/2.jpg", "c/1.jpg", "c/2.jpg", "x.jpg"], "image 'x.jpg' lies beside the folders of people"),
        (["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "query/c/1.jpg"], "but no gallery image"),
        (["train/a/1.jpg", "query/a/1.jpg", "gallery/a/2.jpg"], "person 'a' is in training"),
        (["query/c/1.jpg", "gallery/d/1.jpg"], "query 'query/c/1.jpg' of person 'c' has no other image in the gallery"),
        (["train/a/1.jpg", "bounding_box_train/a/2.jpg"], "holds train and bounding_box_train"),
        (["x.jpg", "y.jpg"], "does not read the name of 'x.jpg'"),
        (["a/1.jpg", "a/2.jpg"], "needs as many with two images"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(DPMError) as caught:
        read_people(str(tmp_path)).check()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_link_that_leads_nowhere_and_a_folder_that_holds_itself_end(tmp_path):
    draw_people(tmp_path)
    (tmp_path / "p0" / "again").symlink_to(tmp_path)
    assert not problems(tmp_path)
    (tmp_path / "p0" / "9.jpg").symlink_to(tmp_path / "gone.jpg")
    assert problems(tmp_path) == [
        ("unreadable", f"there is no image 'p0/9.jpg' in '{tmp_path}'; it leads nowhere; remove it")
    ]


@pytest.mark.parametrize(
    "pattern, message", [("(", "is no regular expression"), (r"\d+", "needs the group pid, camid")]
)
def test_a_pattern_that_is_none_is_refused(pattern, message):
    with pytest.raises(DPMError, match=message):
        OwnOptions(pattern)


def test_a_path_is_looked_for_below_the_root_and_then_below_the_current_folder(tmp_path, monkeypatch):
    draw_people(tmp_path / "root" / "people", 4)
    draw_people(tmp_path / "here" / "people", 5)
    draw_people(tmp_path / "here" / "others", 6)
    monkeypatch.chdir(tmp_path / "here")
    count = lambda name, root: len(read_people(name, root).persons)
    assert (count("people", "../root"), count("./people", "none"), count("others", "../root")) == (4, 5, 6)
    with pytest.raises(DPMError, match=r"there is no 'x.csv' \(neither '.*root' nor '.*here' has it\)"):
        read_people("x.csv", "../root")
