"""The folder that a reader of the documents works in, with small stand-ins for a reader's files."""

import shutil
import zipfile
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from dpm_plugin.weights.files import read_state
from helpers.model import to_released
from helpers.readme import ROOT

SCRIPT = """
import argparse, torchreid, yaml
parser = argparse.ArgumentParser()
parser.add_argument("--config-file")
parser.add_argument("--root")
args = parser.parse_args()
manager = torchreid.data.ImageDataManager(root=args.root, use_gpu=False, **yaml.safe_load(open(args.config_file)))
print("identities:", manager.num_train_pids)
"""
# Folder, name of its published list -> identities, cameras and frames of its images.
SIDES = {
    ("bounding_box_train", "train"): (range(1, 9), (1, 2), (1, 2)),
    ("query", "query"): (range(11, 17), (1,), (1,)),
    ("bounding_box_test", "gallery"): (range(11, 17), (2, 3), (1, 2)),
}


class Place:
    """What the steps share.

    ``folder`` holds a reader's files (None: commands are only read), ``printed`` what each command said, ``names``
    what the snippets defined.
    """

    def __init__(self, folder, pytestconfig):
        self.folder, self.pytestconfig, self.printed, self.names = folder, pytestconfig, {}, {}
        if folder is not None:
            self._draw(np.random.default_rng(0))
            shutil.copytree(ROOT / "configs", folder / "configs")
            (folder / "scripts").mkdir()
            (folder / "scripts" / "main.py").write_text(SCRIPT)
            (folder / "my.yaml").write_text("{sources: occluded_duke, batch_size_train: 4, workers: 0}")

    def _draw(self, rng):
        """Images; Occluded-Duke, a DukeMTMC-reID.zip of it and the lists of its names; a video and boxes in it."""
        (self.folder / "my-images").mkdir()
        for name in ("a.jpg", "b.png", "who.jpg", "my-images/1.jpg", "my-images/2.png"):
            self._image(rng, self.folder / name)
        for person in range(12):
            (self.folder / "people" / f"person {person}").mkdir(parents=True)
            for number in range(8):
                self._image(rng, self.folder / "people" / f"person {person}" / f"{number}.jpg")
        rows = [
            f"people/person {person}/{number}.jpg,{person},{number % 2}" for person in range(12) for number in range(8)
        ]
        (self.folder / "people.csv").write_text("\n".join(["path,pid,camid", *rows]))
        (self.folder / "FOLDER").mkdir()
        with zipfile.ZipFile(self.folder / "DukeMTMC-reID.zip", "w") as archive:
            for (side, split), parts in SIDES.items():
                top = self.folder / "reid-data" / "Occluded_Duke" / side
                top.mkdir(parents=True)
                names = [f"{pid:04d}_c{camera}_f{frame:07d}.jpg" for pid, camera, frame in product(*parts)]
                (self.folder / "FOLDER" / f"{split}.list").write_text("\n".join(names) + "\n")
                for name in names:
                    archive.write(self._image(rng, top / name), f"DukeMTMC-reID/{side}/{name}")
        film = cv2.VideoWriter(str(self.folder / "video.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 48))
        frame = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        for _ in range(5):
            film.write(frame)
        film.release()
        (self.folder / "boxes.txt").write_text("".join(f"{number},-1,10,4,16,32,0.9\n" for number in range(1, 6)))

    @staticmethod
    def _image(rng, path):
        Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(path)
        return path

    def release(self):
        """Once there is a run: its weights as the published ones, by hand in the cache and as a file."""
        if not Path("released.pth").exists():
            torch.save(to_released(read_state("log/dpm_occduke/model/last.pth.tar")), "released.pth")
            Path("cache").mkdir()
            shutil.copy("released.pth", "cache/occluded_duke.pth")
