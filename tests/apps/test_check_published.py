"""tools/check_data.py on every data set of configs/DATA.md at its full published size: complete data are clean."""

import itertools
import os
import struct
import warnings

import pytest

from dpm_plugin.apps.check_data import check_data
from dpm_plugin.commands import check as tool
from dpm_plugin.data import DATASETS, SyntheticSpec
from dpm_plugin.data.datasets.torchreid_sets import PUBLISHED
from dpm_plugin.data.synthetic import generate
from helpers.data import draw, write_market, write_occluded_duke

pytestmark = pytest.mark.torchreid

BMP = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 58, 0, 0, 54, 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0)  # of one pixel


def write(names, pixels):
    """Images of one pixel, no two alike; a reader goes by the content, not by the ending."""
    for name in names:
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "wb") as file:
            file.write(BMP + struct.pack("<I", next(pixels)))


def named(folder, example, images, pids, cameras=(1,), first=0):
    """``images`` paths in turn of ``pids`` and, for each person, in turn of ``cameras``; frames number on."""
    for frame in range(images):
        pid, camera = pids[frame % len(pids)], cameras[frame // len(pids) % len(cameras)]
        yield f"{folder}/{example.format(pid=pid, camera=camera, frame=first + frame)}"


DUKE, MARKET = "{pid:04d}_c{camera}_f{frame:07d}.jpg", "{pid:04d}_c{camera}s1_{frame:06d}_01.jpg"


def occluded_duke(root):
    top = f"{root}/Occluded_Duke"
    yield from named(f"{top}/bounding_box_train", DUKE, 15618, range(1, 703), range(1, 9))
    yield from named(f"{top}/query", DUKE, 2210, range(1000, 1519), (1, 2), 20000)
    yield from named(f"{top}/bounding_box_test", DUKE, 17661, range(1000, 2110), (3, 4), 30000)


def two_views(first, example, people, per_person):
    for view, pid, number in itertools.product((first, "whole_body_images"), range(people), range(per_person)):
        yield f"{view}/{example.format(pid=pid + 1, number=number + 1)}"


def occluded_reid(root):
    names = two_views("occluded_body_images", "{pid:03d}/{pid:03d}_{number:02d}.tif", 200, 5)
    return (f"{root}/Occluded_REID/{name}" for name in names)


def partial_reid(root):
    names = two_views("partial_body_images", "{pid:03d}_{number:03d}.jpg", 60, 5)
    return (f"{root}/Partial_REID/{name}" for name in names)


def partial_ilids(root):
    return (f"{root}/Partial_iLIDS/{name}" for name in two_views("partial_body_images", "{pid:03d}.jpg", 119, 1))


def p_dukemtmc(root):
    top, name = f"{root}/P-DukeMTMC-reID", "{pid:04d}/" + DUKE
    yield from named(f"{top}/train/occluded_body_images", name, 6000, range(1, 666), (1, 2))
    yield from named(f"{top}/train/whole_body_images", name, 6927, range(1, 666), (1, 2), 10000)
    yield from named(f"{top}/test/occluded_body_images", name, 2163, range(1000, 1634), (5,), 20000)
    yield from named(f"{top}/test/whole_body_images", name, 9053, range(1000, 1634), (5, 6), 30000)  # the same camera


def market1501(root):
    top = f"{root}/market1501/Market-1501-v15.09.15"
    yield from named(f"{top}/bounding_box_train", MARKET, 12936, range(751, 1502), range(1, 7))
    yield from named(f"{top}/query", MARKET, 3368, range(1, 751), (1, 2), 20000)
    yield from named(f"{top}/bounding_box_test", MARKET, 15913, range(751), (3, 4), 40000)
    yield from (f"{top}/bounding_box_test/-1_c1s1_{frame:06d}_01.jpg" for frame in range(3819))  # junk


def dukemtmcreid(root):
    top = f"{root}/dukemtmc-reid/DukeMTMC-reID"
    yield from named(f"{top}/bounding_box_train", DUKE, 16522, range(1, 703), range(1, 9))
    yield from named(f"{top}/query", DUKE, 2228, range(1000, 1702), (1, 2), 20000)
    yield from named(f"{top}/bounding_box_test", DUKE, 17661, range(1000, 2110), (3, 4), 30000)


SMALL = [occluded_reid, partial_reid, partial_ilids]
LARGE = [occluded_duke, p_dukemtmc, market1501, dukemtmcreid]


def test_every_data_set_of_the_documents_is_here():
    assert {names.__name__ for names in SMALL + LARGE} | {"synthetic_occluded"} == {*DATASETS, *PUBLISHED}


@pytest.mark.parametrize("names", [pytest.param(each, marks=pytest.mark.slow) for each in LARGE] + SMALL)
def test_complete_data_as_published_are_clean(names, tmp_path, capsys):
    write(names(tmp_path), itertools.count())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code = tool.main([names.__name__, "--root", str(tmp_path), "--jobs", "1"])
    assert code == 0, capsys.readouterr().out
    assert "clean" in capsys.readouterr().out


def test_a_complete_drawing_is_clean(tmp_path):
    spec = dict(height=32, width=16, train_ids=9, train_images=3, test_ids=9, gallery_images=2, query_images=1)
    generate(SyntheticSpec(**spec, distractor_ids=1), tmp_path, workers=1, verbose=False)
    (found,) = check_data("synthetic_occluded", tmp_path, jobs=1, show=str)
    assert found.findings == []


@pytest.mark.parametrize(
    "name, copied, same",
    [
        ("occluded_duke", "Occluded_Duke/bounding_box_train/0020_c1_f0000009.jpg", "20"),
        ("market1501", "market1501/Market-1501-v15.09.15/bounding_box_train/0001_c2s1_000451_03.jpg", "1"),
    ],
)
def test_people_of_training_in_the_test_are_a_problem(name, copied, same, tmp_path):
    write_occluded_duke(tmp_path)
    write_market(tmp_path)
    draw(tmp_path / copied)
    (found,) = check_data(name, tmp_path, jobs=1, show=str)
    (people,) = (finding for finding in found.problems if finding.kind == "same_people")
    assert people.detail == f"1 in training and in the test: {same}" and people.files[0] == str(tmp_path / copied)
