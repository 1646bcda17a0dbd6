"""The data manager: nothing created, errors that name the file, cameras, batches that can be filled."""

import inspect
import itertools
import random

import numpy as np
import pytest
import torch
from PIL import Image

from dpm_plugin import torchreid_host
from dpm_plugin.data import DATASETS
from dpm_plugin.data.datasets.occluded_duke import OccludedDuke
from dpm_plugin.evaluation.extract import camera_choice, trained_cameras
from dpm_plugin.utils.errors import DPMError
from helpers.data import draw, manager, touch, write_market, write_occluded_duke

pytestmark = pytest.mark.torchreid

torch.set_num_threads(1)


def test_every_argument_of_torchreids_manager_is_accepted_and_a_misspelt_one_refused(tmp_path):
    write_occluded_duke(tmp_path)
    theirs = inspect.signature(torchreid_host.ImageDataManager.__init__).parameters.values()
    defaults = {p.name: p.default for p in theirs if p.name not in ("self", "root", "sources", "targets")}
    defaults.update(height=16, width=8, workers=0, batch_size_train=4)
    assert len(manager(tmp_path, **defaults).train_loader) == 3
    with pytest.raises(TypeError, match="bath_size_train"):
        manager(tmp_path, bath_size_train=4)


def test_batches_have_the_asked_size_and_torchreids_fields(tmp_path):
    write_occluded_duke(tmp_path)
    data = manager(tmp_path, transforms=["random_flip", "pad_crop", "erase_pixel"], interpolation="bicubic")
    batch = next(iter(data.train_loader))
    assert batch["img"].shape == (4, 3, 16, 8) and batch["img"].dtype is torch.float32
    assert sorted(batch) == ["camid", "dsetid", "img", "impath", "pid"]
    query, gallery = data.test_loader["occluded_duke"].values()
    assert next(iter(query))["img"].shape == next(iter(gallery))["img"].shape == (2, 3, 16, 8)
    assert data.num_train_pids == 3
    assert [e[1] for e in data.fetch_test_loaders("occluded_duke")[0]] == [20, 21]


def test_transforms_of_ours_reach_every_loader_and_torchreids_builders_are_put_back(tmp_path):
    write_occluded_duke(tmp_path)
    builders = ("init_image_dataset", "build_train_sampler", "build_transforms")
    module = inspect.getmodule(torchreid_host.ImageDataManager)
    before = [getattr(module, name) for name in builders]
    data = manager(tmp_path, transforms=["jitter"])
    assert data.train_loader.dataset.transform is data.transform_tr
    assert type(data.transform_tr.transforms[1]).__name__ == "ColorJitter"
    loaders = data.test_loader["occluded_duke"]
    assert loaders["query"].dataset.transform is loaders["gallery"].dataset.transform is data.transform_te
    with pytest.raises(DPMError):
        manager(tmp_path, transforms=["jittr"])
    assert [getattr(module, name) for name in builders] == before


@pytest.mark.parametrize("name", sorted(set(torchreid_host.image_dataset_classes()) - {"synthetic_occluded"}))
def test_a_missing_data_set_is_an_error_and_nothing_is_created(name, tmp_path, monkeypatch):
    for downloader in ("urllib.request.urlretrieve", "gdown.download", "os.system"):
        monkeypatch.setattr(downloader, lambda *a, **k: pytest.fail("it tried to download"))
    write_occluded_duke(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DPMError, match=name if name != "occluded_duke" else "mars"):
        manager(tmp_path, "occluded_duke", [name if name != "occluded_duke" else "mars"])
    if name not in DATASETS:
        with pytest.raises(DPMError, match="expected folders"):
            manager(tmp_path / "nowhere", name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda top: (top / "query").rename(top / "queries"), 'query" is not found'),
        (lambda top: [p.unlink() for p in (top / "query").iterdir()], "a folder has no images"),
        (lambda top: touch(top, "query/cover.jpg"), "a file name is not understood"),
    ],
)
def test_torchreids_own_data_set_in_disorder_is_an_error_with_its_folders(spoil, message, tmp_path):
    spoil(write_market(tmp_path))
    with pytest.raises(DPMError) as caught:
        manager(tmp_path, "market1501")
    assert message in str(caught.value) and "expected folders" in str(caught.value)


@pytest.mark.parametrize(
    "sources, message",
    [
        ("ocluded_duke", "'ocluded_duke'; did you mean 'occluded_duke'"),
        (None, "data.sources"),
        ("market1501", "'Market-1501-v15.09.15' there looks like it"),
    ],
)
def test_an_unknown_data_set_or_folder_is_an_error_with_the_nearest_name(sources, message, tmp_path):
    (tmp_path / "Market-1501-v15.09.15").mkdir()
    with pytest.raises(DPMError, match=message):
        manager(tmp_path, sources)


def test_a_test_set_is_a_target_but_no_source(tmp_path):
    write_occluded_duke(tmp_path)
    for view in ("occluded_body_images", "whole_body_images"):
        draw(tmp_path / "Occluded_REID" / view / "001" / "001_01.tif")
    data = manager(tmp_path, "occluded_duke", ["occluded_reid", "occluded_duke"])
    query, gallery = data.test_loader["occluded_reid"].values()
    assert (next(iter(query))["camid"].tolist(), next(iter(gallery))["camid"].tolist()) == ([0], [1])
    with pytest.raises(DPMError, match="occluded_reid is a test set; train on market1501"):
        manager(tmp_path, "occluded_reid")


def rows_of(data, name, side="query", choice="auto"):
    """The rows of the camera embedding for the images of a test set; None is the neutral camera."""
    camids = torch.tensor([entry[2] for entry in data.test_dataset[name][side]])
    rows = camera_choice(choice, side, trained_cameras(data), name)(camids)
    return None if rows is None else rows.tolist()


def training_cameras(data, place=0):
    return {entry[2] for entry in data.train_loader.dataset.data if entry[3] == place}


def test_cameras_of_one_source_are_numbered_without_gaps_and_told_of_test_images(tmp_path):
    write_occluded_duke(tmp_path, cameras=(1, 8))
    write_market(tmp_path)
    data = manager(tmp_path, targets=["occluded_duke", "market1501"])
    assert (data.num_train_cams, data.num_cameras, training_cameras(data)) == (2, 2, {0, 1})
    assert data.camera_rows("occluded_duke") == {0: 0, 7: 1} and data.camera_rows("market1501") is None
    assert rows_of(data, "occluded_duke") == [0, 0] and rows_of(data, "market1501") is None
    assert rows_of(data, "occluded_duke", "gallery") == [-1, -1]  # camera 2 was not in training: neutral
    assert rows_of(data, "occluded_duke", "gallery", "ids") == [1, 1]
    assert not data.same_without_dense


def test_without_dense_cameras_ids_and_torchreids_shifts_are_the_rows(tmp_path):
    write_occluded_duke(tmp_path, cameras=(1, 8))
    write_market(tmp_path)
    data = manager(tmp_path, dense_cameras=False)
    assert (data.num_train_cams, data.num_cameras, training_cameras(data)) == (2, 8, {0, 7})
    assert rows_of(data, "occluded_duke", "gallery") == [1, 1]
    both = manager(tmp_path, ["market1501", "occluded_duke"], "occluded_duke", dense_cameras=False)
    assert (both.camera_rows("market1501"), both.camera_rows("occluded_duke"), both.num_cameras) == (0, 2, 10)
    assert rows_of(both, "occluded_duke", "gallery") == [3, 3]


def test_cameras_without_gaps_have_the_same_rows_with_and_without_dense_cameras(tmp_path):
    write_occluded_duke(tmp_path)
    dense, plain = manager(tmp_path), manager(tmp_path, dense_cameras=False)
    assert dense.same_without_dense and dense.num_cameras == plain.num_cameras == 2
    assert dense.train_loader.dataset.train == plain.train_loader.dataset.train
    for side in ("query", "gallery"):
        assert rows_of(dense, "occluded_duke", side) == rows_of(plain, "occluded_duke", side)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("sets", [("a", "b", "c"), ("c", "a", "b"), ("b", "c", "a")])
def test_dense_cameras_of_several_sources_share_no_row_and_others_are_torchreids(sets, dense, tmp_path):
    cameras = {"a": (1, 3), "b": (1, 2, 6), "c": (1, 2)}
    for name, used in cameras.items():

        class Named(OccludedDuke):
            structure = type(OccludedDuke.structure)(**{**vars(OccludedDuke.structure), "folders": (f"set_{name}",)})

        write_occluded_duke(tmp_path, folder=f"set_{name}", cameras=used)
        torchreid_host.register_dataset(f"set_{name}", Named)
    names = [f"set_{name}" for name in sets]
    data = manager(tmp_path, names, dense_cameras=dense)
    found = [training_cameras(data, place) for place in range(3)]
    if dense:
        assert data.num_cameras == 7 and sorted(row for rows in found for row in rows) == list(range(7))
    for name, rows in zip(sets, found):
        known = data.camera_rows(f"set_{name}")
        if dense:
            assert list(known) == [camera - 1 for camera in cameras[name]] and set(known.values()) == rows
        else:
            assert known == min(rows)  # every set has a camera 0


@pytest.mark.parametrize("named", [True, False])
def test_occluded_and_whole_images_of_p_dukemtmc_have_the_row_of_their_camera(named, tmp_path):
    for part, camera in itertools.product(("occluded_body_images", "whole_body_images"), (2, 5)):
        name = f"c{camera}_f1.jpg" if named else f"{camera}.jpg"
        if (part, camera) != ("whole_body_images", 2):  # in training its camera has occluded images only
            draw(tmp_path / f"P-DukeMTMC-reID/train/{part}/0009/0009_{name}")
        draw(tmp_path / f"P-DukeMTMC-reID/test/{part}/0030/0030_{name}")
    data, plain = (manager(tmp_path, "p_dukemtmc", dense_cameras=dense, batch_size_train=2) for dense in (True, False))
    expected = [0, 1] if named else [0, 0]
    assert [entry[2] for entry in data.train_loader.dataset.train] == (expected + [1] if named else [0, 0, 0])
    assert [rows_of(data, "p_dukemtmc", side) for side in ("query", "gallery")] == [expected, expected]
    assert data.num_train_cams == data.num_cameras == len(set(expected))
    assert rows_of(plain, "p_dukemtmc", "gallery") == ([9, 12] if named else [1, 1])  # as in checkpoints of before


def test_workers_draw_different_augmentations_and_a_seed_repeats_them(tmp_path):
    top = write_occluded_duke(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    for path in (top / "bounding_box_train").iterdir():
        Image.fromarray(noise).save(path)
    names = ["random_crop", "pad_crop", "erase_pixel", "jitter"]
    data = manager(tmp_path, height=48, width=32, transforms=names, workers=2, batch_size_train=3)

    def epoch(seed):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return torch.cat([batch["img"] for batch in data.train_loader])

    first, again, other = epoch(1), epoch(1), epoch(2)
    assert torch.equal(first, again) and not torch.equal(first, other)
    equal = [(i, j) for i in range(12) for j in range(i) if torch.equal(first[i], first[j])]
    assert len(first) == 12 and equal == []  # the images are the same: only the augmentation differs


def test_a_batch_larger_than_the_training_set_is_an_error_with_numbers(tmp_path):
    write_occluded_duke(tmp_path)
    with pytest.raises(DPMError, match=r"batch of 13 .*12 images, 3 identities.*lower it to 12"):
        manager(tmp_path, batch_size_train=13)
    assert len(manager(tmp_path, batch_size_train=12).train_loader) == 1


@pytest.mark.parametrize(
    "sampler, options, message",
    [
        ("RandomIdentitySampler", {"batch_size_train": 8, "num_instances": 2}, "needs 4 identities.* has 3 "),
        ("RandomIdentitySampler", {"batch_size_train": 2, "num_instances": 4}, "between 1 and the batch size 2"),
        ("RandomIdentitySampler", {"batch_size_train": 5, "num_instances": 2}, "no multiple.*make it 4"),
        ("RandomDomainSampler", {"batch_size_train": 4, "num_cams": 4}, "12 images, 3 identities, 2 cameras"),
        ("RandomDatasetSampler", {"batch_size_train": 4, "num_datasets": 2}, "RandomDatasetSampler cannot"),
        ("RandomIdentitySample", {}, "did you mean 'RandomIdentitySampler'"),
    ],
)
def test_a_sampler_that_cannot_fill_a_batch_is_an_error_before_training(sampler, options, message, tmp_path):
    write_occluded_duke(tmp_path)
    with pytest.raises(DPMError, match=message):
        manager(tmp_path, train_sampler=sampler, **options)


@pytest.mark.parametrize("sampler", ["RandomIdentitySampler", "RandomDomainSampler", "RandomDatasetSampler"])
def test_torchreids_samplers_yield_whole_batches(sampler, tmp_path):
    write_occluded_duke(tmp_path)
    data = manager(tmp_path, train_sampler=sampler, num_instances=2, num_cams=2)
    batches = [batch["pid"] for batch in data.train_loader]
    assert batches and all(len(batch) == 4 for batch in batches)
    if sampler == "RandomIdentitySampler":
        assert all(len(set(batch.tolist())) == 2 for batch in batches)


def test_the_synthetic_parameters_reach_the_synthetic_data_set_only(tmp_path, monkeypatch):
    specs = []

    class Synthetic(OccludedDuke):
        def __init__(self, root="", spec="default", **options):
            specs.append(spec)
            super().__init__(root, **options)

    registry = torchreid_host.image_dataset_classes()
    torchreid_host.register_dataset("synthetic_occluded", Synthetic)
    try:
        write_occluded_duke(tmp_path)
        manager(tmp_path, "synthetic_occluded", "occluded_duke", synthetic="asked")
        assert specs == ["asked"]
        manager(tmp_path, "synthetic_occluded", "occluded_duke")
        assert specs == ["asked", "default"]
    finally:
        torchreid_host.register_dataset("synthetic_occluded", registry.get("synthetic_occluded", Synthetic))


def test_a_target_can_also_give_training_images(tmp_path):
    write_occluded_duke(tmp_path)
    write_market(tmp_path)
    data = manager(tmp_path, "occluded_duke", "market1501", load_train_targets=True)
    assert len(data.train_loader_t.dataset) == 4 and data.camera_rows("market1501") is None
    with pytest.raises(DPMError, match="load_train_targets"):
        manager(tmp_path, "occluded_duke", "occluded_duke", load_train_targets=True)
