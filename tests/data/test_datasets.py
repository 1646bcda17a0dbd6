"""Data sets: spellings, counts, cameras, order, and errors that name what is missing."""

import os
import random
import re
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpm_plugin.data import DATASETS
from dpm_plugin.data.datasets.folders import find_folder, plain
from dpm_plugin.utils.errors import DPMError
from helpers.data import SHARED_LISTS, touch

pytestmark = pytest.mark.torchreid

TINY = {
    "occluded_duke": (
        "Occluded_Duke/bounding_box_train/0007_c2_f0000001.jpg",
        "Occluded_Duke/bounding_box_train/0003_c8_f0000001.jpg",
        "Occluded_Duke/query/0020_c1_f0000001.jpg",
        "Occluded_Duke/bounding_box_test/0020_c3_f0000001.jpg",
    ),
    "occluded_reid": (
        "Occluded_REID/occluded_body_images/001/001_01.tif",
        "Occluded_REID/whole_body_images/001/001_01.tif",
    ),
    "p_dukemtmc": (
        "P-DukeMTMC-reID/train/occluded_body_images/0009/0009_c2_f0000001.jpg",
        "P-DukeMTMC-reID/train/whole_body_images/0009/0009_c2_f0000002.jpg",
        "P-DukeMTMC-reID/test/occluded_body_images/0030/0030_c5_f0000001.jpg",
        "P-DukeMTMC-reID/test/whole_body_images/0030/0030_c5_f0000002.jpg",
    ),
    "partial_reid": ("Partial_REID/partial_body_images/001_001.jpg", "Partial_REID/whole_body_images/001_001.jpg"),
    "partial_ilids": ("Partial_iLIDS/partial_body_images/001.jpg", "Partial_iLIDS/whole_body_images/001.jpg"),
}
TEST_SETS = ("occluded_reid", "partial_reid", "partial_ilids")


PUBLISHED = [name for name in DATASETS if name != "synthetic_occluded"]  # that one is drawn, not found


def load(name, root, mode="query", **options):
    """A data set whose counts differ from the published ones, as every tiny one's do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DATASETS[name](str(root), mode=mode, verbose=False, **options)


def names_of(entries):
    return [(os.path.basename(path), pid, camid) for path, pid, camid, _ in entries]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_data_set_reads_its_published_folders(name, tmp_path):
    touch(tmp_path, *TINY[name])
    dataset = load(name, tmp_path)
    found = {path for split in (dataset.train, dataset.query, dataset.gallery) for path, *_ in split}
    assert found == {str(tmp_path / path) for path in TINY[name]}
    assert len(dataset) == 1 and dataset.data == dataset.query


@pytest.mark.parametrize(
    "name, spelling",
    [
        ("occluded_duke", "Occluded-DukeMTMC-reID"),
        ("occluded_duke", "occluded_duke"),
        ("occluded_duke", "OccludedDuke"),
        ("occluded_reid", "Occluded-REID"),
        ("occluded_reid", "OccludedReID"),
        ("p_dukemtmc", "P_DukeMTMC_reid"),
        ("p_dukemtmc", "p-dukemtmc"),
        ("partial_reid", "PartialREID"),
        ("partial_reid", "Partial-REID_Dataset"),
        ("partial_ilids", "partial-ilids"),
    ],
)
def test_common_spellings_of_the_folder_are_accepted(name, spelling, tmp_path):
    touch(tmp_path, *(re.sub(r"^[^/]+", spelling, path) for path in TINY[name]))
    assert len(load(name, tmp_path)) == 1


def test_flat_folders_and_other_inner_spellings_are_accepted_and_what_is_no_image_is_ignored(tmp_path):
    touch(tmp_path / "Occluded_REID", "Occluded-Body-Images/001_01.JPG", "whole_body_images/001_02.png")
    touch(tmp_path / "Occluded_REID/whole_body_images", "Thumbs.db", "001/readme.txt", ".DS_Store")
    dataset = load("occluded_reid", tmp_path)
    assert names_of(dataset.query + dataset.gallery) == [("001_01.JPG", 1, 0), ("001_02.png", 1, 1)]


def test_the_usual_spelling_wins_and_two_others_are_an_error(tmp_path):
    for folder in ("Occluded-Duke", "OccludedDuke"):
        (tmp_path / folder).mkdir()
    with pytest.raises(DPMError, match="Occluded-Duke and OccludedDuke"):
        find_folder(tmp_path, ("Occluded_Duke",))
    (tmp_path / "Occluded_Duke").mkdir()
    assert find_folder(tmp_path, ("Occluded_Duke",)) == str(tmp_path / "Occluded_Duke")


@given(st.text("AbC09-_ ", max_size=12))
def test_case_and_separators_do_not_distinguish_folders(name):
    assert plain(name) == plain(name.upper()) == plain(name.replace("-", "_")) == plain(name.replace(" ", ""))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_missing_data_set_is_named_with_folders_and_origin_and_nothing_is_created(name, tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DPMError) as caught:
            load(name, root)
        structure = DATASETS[name].structure
        assert structure.tree in str(caught.value) and structure.origin in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_inner_folder_is_named_with_what_is_there(tmp_path):
    touch(tmp_path, "Occluded_Duke/query/0001_c1_f0000001.jpg", "Occluded_Duke/train/0001_c1_f0000001.jpg")
    with pytest.raises(DPMError, match=r"no folder 'bounding_box_train' in .*found there: query, train"):
        load("occluded_duke", tmp_path)


def test_giving_the_data_set_itself_as_root_is_recognised(tmp_path):
    touch(tmp_path, *TINY["occluded_duke"])
    with pytest.raises(DPMError, match="give the folder above it as data.root"):
        load("occluded_duke", tmp_path / "Occluded_Duke")


def test_an_empty_folder_says_which_names_it_expects(tmp_path):
    touch(tmp_path, *TINY["occluded_duke"])
    (tmp_path / TINY["occluded_duke"][2]).unlink()
    touch(tmp_path, "Occluded_Duke/query/Thumbs.db", "Occluded_Duke/query/.0001_c1_f0000001.jpg")
    message = r"query folder '.*query' has no images; expected names like 0001_c2_f0046182.jpg"
    with pytest.raises(DPMError, match=message):
        load("occluded_duke", tmp_path)


@pytest.mark.parametrize(
    "name, stray",
    [
        ("occluded_duke", "Occluded_Duke/query/cover.jpg"),
        ("occluded_duke", "Occluded_Duke/query/0001_c9_f1.jpg"),
        ("occluded_duke", "Occluded_Duke/query/0001_c12_f1.jpg"),
        ("occluded_reid", "Occluded_REID/whole_body_images/001/a_01.tif"),
        ("occluded_reid", "Occluded_REID/whole_body_images/001/002_01.tif"),
        ("partial_ilids", "Partial_iLIDS/partial_body_images/x1.jpg"),
        ("p_dukemtmc", "P-DukeMTMC-reID/train/whole_body_images/0009/0010_c1_f0000002.jpg"),
    ],
)
def test_an_image_whose_name_or_folder_does_not_fit_is_named(name, stray, tmp_path):
    touch(tmp_path, *TINY[name], stray)
    with pytest.raises(DPMError, match=re.escape(stray)):
        load(name, tmp_path)


def test_a_broken_link_is_named(tmp_path):
    touch(tmp_path, *TINY["partial_reid"])
    (tmp_path / "Partial_REID/whole_body_images/002_001.jpg").symlink_to("gone.jpg")
    with pytest.raises(DPMError, match="002_001.jpg' is a link that leads nowhere"):
        load("partial_reid", tmp_path)


def test_counts_that_differ_from_the_published_ones_are_warned_about(tmp_path):
    touch(tmp_path, *TINY["partial_ilids"])
    with pytest.warns(UserWarning) as caught:
        DATASETS["partial_ilids"](str(tmp_path), mode="query", verbose=False)
    text = " ".join(str(w.message) for w in caught)
    assert "query has 1 images of 1 identities" in text and "published are 119 of 119" in text


def test_published_counts_load_in_silence(tmp_path):
    for view in ("partial_body_images", "whole_body_images"):
        touch(tmp_path / "Partial_iLIDS" / view, *(f"{pid:03d}.jpg" for pid in range(1, 120)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(DATASETS["partial_ilids"](str(tmp_path), mode="gallery", verbose=False)) == 119


@pytest.mark.parametrize("name", TEST_SETS)
def test_a_test_set_cannot_be_trained_on_and_has_an_empty_training_set(name, tmp_path):
    touch(tmp_path, *TINY[name])
    with pytest.raises(DPMError, match=f"{name} is a test set; train on market1501"):
        load(name, tmp_path, "train")
    for mode in ("query", "gallery"):
        dataset = load(name, tmp_path, mode, combineall=True)
        assert dataset.train == [] and dataset.num_train_pids == dataset.num_train_cams == 0
        assert len(dataset) == 1
        assert "train    |     0" in repr(dataset)


@pytest.mark.parametrize("name", [*TEST_SETS, "p_dukemtmc"])
def test_queries_and_gallery_share_no_camera_so_the_camera_rule_discards_nothing(name, tmp_path):
    touch(tmp_path, *TINY[name])
    dataset = load(name, tmp_path)
    assert {camid for _, _, camid, _ in dataset.query}.isdisjoint(camid for _, _, camid, _ in dataset.gallery)
    if name in TEST_SETS:
        assert [e[2] for e in dataset.query + dataset.gallery] == [0, 1]


def test_p_dukemtmc_takes_cameras_from_names_if_all_have_one_else_the_view(tmp_path):
    touch(tmp_path, *TINY["p_dukemtmc"])
    dataset = load("p_dukemtmc", tmp_path, "train")
    assert [e[2] for e in dataset.train + dataset.query + dataset.gallery] == [1, 9, 4, 12]
    touch(tmp_path, "P-DukeMTMC-reID/test/whole_body_images/0030/0030_2.jpg")
    dataset = load("p_dukemtmc", tmp_path, "train")
    assert [e[2] for e in dataset.train + dataset.query + dataset.gallery] == [0, 1, 0, 1, 1]


def test_training_identities_are_numbered_in_order_whatever_order_the_disk_has(tmp_path, monkeypatch):
    names = [f"{pid:04d}_c{camera}_f0000001.jpg" for pid in (900, 3, 41) for camera in (2, 1)]
    touch(tmp_path / "Occluded_Duke" / "bounding_box_train", *names)
    touch(tmp_path, *TINY["occluded_duke"][2:])
    labels = {3: 0, 41: 1, 900: 2}
    wanted = [(f"{pid:04d}_c{c}_f0000001.jpg", label, c - 1) for pid, label in labels.items() for c in (1, 2)]
    dataset = load("occluded_duke", tmp_path, "train")
    assert names_of(dataset.train) == wanted
    assert names_of(dataset.query) == [("0020_c1_f0000001.jpg", 20, 0)]  # a test identity keeps its number
    scandir, shuffle = os.scandir, random.Random(1)

    def shuffled(path):
        entries = list(scandir(path))
        shuffle.shuffle(entries)
        return entries

    monkeypatch.setattr(os, "scandir", shuffled)
    assert names_of(load("occluded_duke", tmp_path, "train").train) == wanted


def test_combineall_adds_the_test_identities_after_the_training_ones(tmp_path):
    touch(tmp_path, *TINY["occluded_duke"], "Occluded_Duke/query/0019_c1_f0000001.jpg")
    dataset = load("occluded_duke", tmp_path, "train", combineall=True)
    assert [(e[1], e[2]) for e in dataset.train] == [(0, 7), (1, 1), (2, 0), (3, 0), (3, 2)]
    assert (dataset.num_train_pids, dataset.num_train_cams) == (4, 4) and len(dataset) == 5


def test_a_misspelt_argument_is_refused(tmp_path):
    with pytest.raises(TypeError, match="verbos"):
        DATASETS["occluded_duke"](str(tmp_path), verbos=True)


@pytest.mark.skipif(not SHARED_LISTS.is_dir(), reason="the published lists are not beside the repository")
def test_the_published_lists_load_with_the_published_counts_and_no_warning(tmp_path):
    folders = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    for split, folder in folders.items():
        target = tmp_path / "Occluded_Duke" / folder
        target.mkdir(parents=True)
        for name in (SHARED_LISTS / f"{split}.list").read_text().split():
            os.close(os.open(target / name, os.O_CREAT))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = DATASETS["occluded_duke"](str(tmp_path), mode="train", verbose=False)
    assert (len(dataset.train), dataset.num_train_pids) == (15618, 702)
    assert (len(dataset.query), dataset.get_num_pids(dataset.query)) == (2210, 519)
    assert (len(dataset.gallery), dataset.get_num_pids(dataset.gallery)) == (17661, 1110)
    assert {e[1] for e in dataset.train} == set(range(702)) and {e[2] for e in dataset.train} == set(range(8))
