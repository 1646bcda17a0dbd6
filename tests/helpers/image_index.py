"""Small indexes of drawn images."""

from types import SimpleNamespace

import numpy as np
import torch

from dpm_plugin.apps.image_index.indexing import index_images
from dpm_plugin.apps.image_index.store import read_index
from dpm_plugin.utils.images import read_image
from helpers.images import draw_noise


class MeanColour:
    """An extractor that starts at once: an image's feature is its mean colour."""

    batch_size = 2

    def __init__(self):
        self.prepared = []

    def prepare(self, path):
        return torch.tensor(np.asarray(read_image(path, upright=True), dtype=np.float32).mean(axis=(0, 1)) / 255)

    def __call__(self, images):
        self.prepared += images
        return SimpleNamespace(embedding=torch.stack(images))


MODEL = {"fingerprint": "a", "name": "mean colour", "feature_dim": 3, "source": None, "config_file": None}


def update(root, folder=None, extractor=None, model=MODEL):
    return index_images(root, extractor or MeanColour(), model, folder)


def draw_images(folder, count):
    for number in range(count):
        draw_noise(folder / f"{number}.png", number)


def content(folder):
    """What is in an index: (paths, embeddings)."""
    index = read_index(folder)
    return index.paths, index.embedding
