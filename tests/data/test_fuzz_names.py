"""File names of any letters: in data sets, in checks of folders and on pages."""

import json
import os
import shutil
import warnings

from hypothesis import strategies as st
from PIL import Image

from dpm_plugin.apps.check_data import check_data
from dpm_plugin.apps.check_data.report import as_json, summary
from dpm_plugin.apps.query_page.article import Tile
from dpm_plugin.apps.query_page.page import figure
from dpm_plugin.apps.visualize.visualize_run import choose_queries
from dpm_plugin.data.datasets import OccludedDuke, PartialREID, PDukeMTMC
from helpers.data import draw
from helpers.fuzz import Refused, fuzz, outcome, sizes  # noqa: F401, a fixture
from helpers.page import Tags

HOSTILE = [
    *("<script>alert(1)</script>.jpg", "\" onerror='alert(1)'.jpg", "a\nb.jpg", "\u202egpj.exe.jpg", "\udcff.jpg"),
    *("$(touch x).jpg", "-rf.jpg", "%s%n.jpg", "{0}.jpg", "\u0663_c1_f1.jpg", "\u00b2_c1.jpg", "9" * 200 + "_c1.jpg"),
    *("0001_c2_f1.JPG", "0001_c9.jpg", ".hidden.jpg", "0001_c1.jpg ", "CON.jpg", "0001_c1_\x1b[2J.png"),
]
letters = st.text(st.characters(exclude_characters="/\0", codec=None), min_size=1, max_size=24)
labelled = st.builds(
    "{:d}{}c{:d}{}.{}".format,
    st.integers(0, 10**12),
    st.sampled_from("_- "),
    st.integers(0, 12),
    st.text("_f0123abc", max_size=5),
    st.sampled_from(["jpg", "png", "tif", "txt", "jpg.bak"]),
)
names = st.sampled_from(HOSTILE) | labelled | letters.map(lambda text: text + ".jpg") | letters
names = names.filter(lambda name: name not in (".", "..") and len(name.encode("utf-8", "replace")) < 250)


def fill(folder, found):
    """A folder of empty files of these names; returns those that the file system took."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = []
    for name in found:
        try:
            (folder / name).touch()
        except (OSError, UnicodeEncodeError):
            continue
        made.append(name)
    return made


@sizes(15, 700)
def test_data_sets_of_any_file_names_are_read_right_or_refused(fuzz, tmp_path):  # noqa: F811
    top = tmp_path / "Occluded_Duke"
    for split, name in (("query", "0001_c1_f1.jpg"), ("bounding_box_test", "0001_c2_f1.jpg")):
        draw(top / split / name)

    def check(found):
        made = fill(top / "bounding_box_train", found)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = outcome(lambda: OccludedDuke(str(tmp_path), verbose=False))
            (report,) = check_data("occluded_duke", tmp_path, jobs=1, show=str)
        if isinstance(dataset, Refused):
            assert report.problems
        else:
            read = {os.path.basename(path): (pid, camid) for path, pid, camid, _ in dataset.train}
            assert set(read) <= set(made)
            assert all(0 <= camid < 8 and 0 <= pid < len(read) for pid, camid in read.values())
            assert all(int(name.split("_c")[1][0]) == camid + 1 for name, (_, camid) in read.items())
        for parse in (OccludedDuke.parse, PDukeMTMC.parse, PartialREID.parse):
            for name in found:
                labels = outcome(parse, f"/data/{name}", 0)
                assert isinstance(labels, Refused) or 0 <= labels[0] < 2**31

    fuzz(st.lists(names, max_size=4), check)


@sizes(15, 300)
def test_reports_on_folders_with_any_file_names_can_be_printed_and_read(fuzz, tmp_path):  # noqa: F811
    folder = tmp_path / "images"

    def check(found):
        made = fill(folder, found)
        draw(folder / "good.png")
        (report,) = check_data(folder, jobs=1, show=str, plain=True)
        empty = {finding.files[0] for finding in report.findings if finding.kind == "empty"}
        images = [name for name in made if not name.startswith(".") and name.lower().endswith((".jpg", ".png", ".tif"))]
        assert {os.path.basename(path) for path in empty} == set(images) - {"good.png"}
        text = "\n".join(summary(report))
        text.encode("utf-8")
        assert all(letter == "\n" or letter.isprintable() for letter in text)
        assert json.loads(as_json([report], 0.0))["sets"][0]["problems"] == len(report.problems)

    fuzz(st.lists(names, max_size=4), check)


@sizes(20, 500)
def test_pages_show_every_name_as_text(fuzz):  # noqa: F811
    image = Image.new("RGB", (2, 2))

    def check(name):
        text = figure(Tile(image, name, name))
        tags = Tags(text)
        assert [tag for tag, _ in tags.tags] == ["figure", "img", "figcaption"]
        assert sorted(tags.tags[1][1]) == ["alt", "src"] and tags.tags[1][1]["alt"] == name
        chosen = outcome(choose_queries, [f"/data/{name}"], [name])
        assert chosen == [0]

    fuzz(names.filter(lambda name: "\r" not in name), check)
