"""Image files of noise, no two alike."""

import numpy as np
from PIL import Image


def noise(seed=0, size=(12, 20)):
    """A PIL image of (width, height) pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def draw_noise(path, seed=0, size=(12, 20), **options):
    """Write one; ``options`` are those of Pillow's ``save``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed, size).save(path, **options)


def cut(path):
    """Take a file's last 100 bytes away."""
    path.write_bytes(path.read_bytes()[:-100])
