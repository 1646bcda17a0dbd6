"""What the tests do with each block of Python in the documents: sizes made small, the names it expects, what holds."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dpm_plugin import query_mask_distance


class Snippet(NamedTuple):
    """Small sizes for a block, the names it expects, and what must hold afterwards."""

    smaller: dict
    given: Callable = lambda names: {}
    holds: Callable = lambda names: True


def nearest_first_holds(names):
    assert names["distance"].shape == (1, 2) and names["query"].mask.shape == (1, 16)


def batch(names):
    images = torch.randn(3, 3, 32, 16, device=next(names["model"].parameters()).device)
    camids = torch.tensor([0, 1, 0], device=images.device)
    return {"images": images, "camids": camids, "gallery": names["model"].eval().embed(images.flip(0), camids)}


def masked_distance_holds(names):
    query, gallery = names["query"], names["gallery"]
    assert query.cls.shape == query.embedding.shape == query.mask.shape == (3, 16)
    assert names["distance"].shape == (3, len(gallery.embedding))


def features_hold(names):
    found = names["found"]
    assert found.embedding.shape == found.mask.shape == found.cls.shape == (2, 16)
    tolerance = 0.05 if torch.cuda.is_available() else 1e-5  # a GPU takes the half precision of the run's training
    torch.testing.assert_close(names["features"].cpu(), found.embedding, atol=tolerance, rtol=tolerance)


def arrays(names):
    generator = torch.Generator().manual_seed(0)
    q, m, g = (torch.rand(rows, 16, generator=generator) for rows in (2, 2, 30))
    return {"np": np, "q": q.numpy(), "m": m.numpy(), "g": g.numpy(), "expected": query_mask_distance(q, g, m)}


def four_lines_hold(names):
    np.testing.assert_allclose(1 - names["similarity"], names["expected"], atol=1e-5)
    assert (names["order"] == names["expected"].argsort(dim=1).numpy()).all()


# What one block and no other contains -> how it is run.
SNIPPETS = {
    "engine.run(": Snippet(
        {
            "height=256": "height=32",
            "width=128": "width=16",
            "batch_size_train=64": "batch_size_train=8, workers=0",
            "dpm_plugin.dpm_vit(": "dpm_plugin.dpm_vit_tiny(",
            "stride=11": "img_size=(32, 16), stride=8, patch_size=8, embed_dim=16, depth=2, num_heads=2",
            "max_epoch=150": "max_epoch=1",
            ".cuda()": ".cuda()" if torch.cuda.is_available() else "",
        },
        holds=lambda names: Path("log/model/last.pth.tar").is_file(),
    ),
    "model.embed(images": Snippet({}, batch, masked_distance_holds),
    "distance.argsort(": Snippet({}, holds=nearest_first_holds),
    "found.embedding, found.mask": Snippet({}),
    "FeatureExtractor(": Snippet(
        {'"dpm_vit"': '"dpm_vit_tiny"', 'device="cpu"': 'device="cpu", image_size=(32, 16)'}, holds=features_hold
    ),
    "np.argsort(": Snippet({}, arrays, four_lines_hold),
}


def execute(place, text):
    marks = [mark for mark in SNIPPETS if mark in text]
    assert len(marks) == 1, "no test knows this Python"
    snippet = SNIPPETS[marks[0]]
    for size, smaller in snippet.smaller.items():
        assert size in text, f"'{size}' is no longer there to be made smaller"
        text = text.replace(size, smaller)
    place.names.update(snippet.given(place.names))
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text, marks[0], "exec"), place.names)
    assert snippet.holds(place.names) in (True, None)
