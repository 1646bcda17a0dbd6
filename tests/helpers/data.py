"""Tiny data sets on disk for the tests of data sets and the data manager."""

import warnings
from pathlib import Path

from PIL import Image

from dpm_plugin.data import DATASETS, DPMImageDataManager
from dpm_plugin.torchreid_host import image_dataset_classes, register_dataset

SHARED_LISTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "occluded_duke_lists"


def touch(root, *names):
    """Make empty files; data sets look at names only."""
    for name in names:
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def draw(path, color=(120, 60, 30), size=(8, 16)):
    """Write one small picture (size is width, height)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def write_occluded_duke(root, folder="Occluded_Duke", pids=(3, 10, 7), cameras=(1, 2), frames=2):
    """A drawn Occluded-Duke: every identity by every camera in training, two others in the test."""
    top = Path(root) / folder
    for pid in pids:
        for camera in cameras:
            for frame in range(frames):
                name = f"{pid:04d}_c{camera}_f{frame:07d}.jpg"
                draw(top / "bounding_box_train" / name, (pid, camera, frame))
    for pid in (20, 21):
        draw(top / "query" / f"{pid:04d}_c1_f0000001.jpg", (pid, 1, 1))
        draw(top / "bounding_box_test" / f"{pid:04d}_c2_f0000002.jpg", (pid, 2, 2))
    return top


def write_market(root):
    """A drawn Market-1501 in torchreid's own layout."""
    top = Path(root) / "market1501" / "Market-1501-v15.09.15"
    for folder, pids in (("bounding_box_train", (2, 7)), ("query", (1,)), ("bounding_box_test", (1,))):
        for pid in pids:
            for camera in (1, 4):
                draw(top / folder / f"{pid:04d}_c{camera}s1_000451_03.jpg", (pid, camera, 0))
    return top


def manager(root, sources="occluded_duke", targets=None, **options):
    """A data manager of small images in small batches, of data sets whose counts are not the published ones."""
    for name in DATASETS.keys() - image_dataset_classes().keys():
        register_dataset(name, DATASETS[name])
    sizes = dict(height=16, width=8, use_gpu=False, workers=0, batch_size_train=4, batch_size_test=2, transforms=[])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DPMImageDataManager(str(root), sources, targets, **{**sizes, **options})
