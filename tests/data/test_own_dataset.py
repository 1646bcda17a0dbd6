"""Your own people in torchreid: labels, cameras or none, training on everything, names among options."""

import pytest

from dpm_plugin.commands import train
from dpm_plugin.data.own import OwnDataset, OwnOptions, looks_like_path, read_people
from dpm_plugin.evaluation.extract import camera_choice, camera_key, trained_cameras
from dpm_plugin.evaluation.metric import unmatched_queries
from dpm_plugin.utils.errors import DPMError
from helpers.data import manager, touch, write_occluded_duke
from helpers.own import draw_people, write_csv

pytestmark = pytest.mark.torchreid

CAMERAS = OwnOptions(r"_c(?P<camid>\d)")


def labels(entries):
    return [entry[1:3] for entry in entries]


def test_without_cameras_training_has_one_and_each_test_image_one_of_its_own(tmp_path):
    draw_people(tmp_path / "people")
    data = manager(tmp_path, "people")
    assert {camid for _, _, camid, _ in data.train_loader.dataset.train} == {0} and data.num_cameras == 0
    query, gallery = (data.test_dataset["people"][side] for side in ("query", "gallery"))
    own = {path: camid for path, _, camid, _ in gallery}
    assert len(set(own.values())) == len(gallery) == 8 and max(own.values()) < 0
    assert all(own[path] == camid for path, _, camid, _ in query)
    pids, camids = zip(*labels(query)), zip(*labels(gallery))
    (q_pids, q_camids), (g_pids, g_camids) = pids, camids
    assert unmatched_queries(q_pids, g_pids, q_camids, g_camids) == []


def test_a_source_without_cameras_takes_the_embedding_from_all(tmp_path):
    write_occluded_duke(tmp_path)
    draw_people(tmp_path / "people")
    assert manager(tmp_path, ["occluded_duke", "people"], "occluded_duke").num_cameras == 0
    draw_people(tmp_path / "seen", cameras=2)
    data = manager(tmp_path, ["occluded_duke", "seen"], "occluded_duke", own=CAMERAS)
    assert data.num_cameras == 4 and data.num_train_pids == 3 + 6


def test_training_cameras_are_known_again_by_the_folder_and_their_names(tmp_path):
    for place in ("here/people", "there/people", "there/others"):
        draw_people(tmp_path / place, cameras=2)
    draw_people(tmp_path / "more" / "people", cameras=3)
    trained = trained_cameras(manager(tmp_path, "here/people", own=CAMERAS))
    for name, known in (("there/people", True), ("./here/../here/people/", True), ("there/others", False)):
        data = manager(tmp_path, name, own=CAMERAS)
        assert (camera_choice("auto", "query", trained, camera_key(data, name)) is not None) and (
            (camera_key(data, name) in trained) == known
        )
    assert camera_key(manager(tmp_path, "more/people", own=CAMERAS), "more/people") not in trained


def test_training_on_everything_takes_each_image_once(tmp_path):
    draw_people(tmp_path / "people")
    data = manager(tmp_path, "people", combineall=True)
    entries = data.train_loader.dataset.train
    assert len({entry[0] for entry in entries}) == len(entries) == 32 and data.num_train_pids == 8
    assert {entry[1] for entry in entries} == set(range(8)) and {entry[2] for entry in entries} == {0}


@pytest.mark.parametrize("splits, mode", [(("train",), "query"), (("query", "gallery"), "train")])
def test_a_split_that_is_not_there_is_named(tmp_path, splits, mode):
    for split in splits:
        touch(tmp_path / split, f"a/{split}1.jpg", f"a/{split}2.jpg")
    people = read_people(str(tmp_path))
    people.check()
    with pytest.raises(DPMError, match=f"has no {mode} images; name another in data"):
        OwnDataset(people, mode=mode)


def test_images_are_in_the_order_of_their_paths_whatever_the_order_of_lines(tmp_path):
    touch(tmp_path, *(f"{number}.jpg" for number in range(6)))
    rows = [(f"{number}.jpg", "7" if number % 2 else "12", "train") for number in (3, 5, 0, 1, 4, 2)]
    dataset = OwnDataset(read_people(str(write_csv(tmp_path / "p.csv", ("path", "pid", "split"), rows))), verbose=False)
    assert [path[-5:] for path, *_ in dataset.train] == [f"{number}.jpg" for number in range(6)]
    assert labels(dataset.train) == [(1, 0), (0, 0)] * 3  # 7 comes before 12


def test_an_unknown_name_that_is_no_path_is_told_the_nearest_known_one(tmp_path):
    with pytest.raises(DPMError, match="did you mean 'occluded_duke'"):
        manager(tmp_path, "ocluded_duke")
    with pytest.raises(DPMError, match="there is no 'people.csv'"):
        manager(tmp_path, "people.csv")


def test_paths_on_the_command_line_are_names_and_keys_are_keys(tmp_path):
    parse = train.parse
    args = parse(["-s", "market1501", "people.csv", "../x.y", "-t", "a/b.c", "train.lr", "0.1"])
    assert vars(args)["data.sources"] == ["market1501", "people.csv", "../x.y"]
    assert vars(args)["data.targets"] == ["a/b.c"] and args.opts == ["train.lr", "0.1"]
    assert not looks_like_path("market1501") and looks_like_path("P.CSV")
