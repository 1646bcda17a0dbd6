"""Ranked lists as images: torchreid's drawing, with errors that name the file."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from dpm_plugin import torchreid_host
from dpm_plugin.utils.errors import DPMError


def visualize_ranks(
    distmat: np.ndarray,
    query: Sequence[tuple],
    gallery: Sequence[tuple],
    save_dir: str | Path,
    *,
    width: int = 128,
    height: int = 256,
    topk: int = 10,
) -> None:
    """Draw each query with its ``topk`` nearest gallery images into ``save_dir``/<query file's name>.jpg.

    Green frames are matches, red ones are not; images of the query's own identity and camera are skipped.

    Args:
        distmat, query, gallery: (Q, G) distances, and lists of (path, pid, camid, ...) in their order.
        width, height: pixels of one image, default 128 x 256.
    """
    try:
        torchreid_host.utils.visualize_ranked_results(
            distmat, (query, gallery), "image", width=width, height=height, save_dir=str(save_dir), topk=topk
        )
    except cv2.error as error:
        # OpenCV's reader returns None for a file it cannot read, and the failure follows without a name.
        for path, *_ in (*query, *gallery):
            if cv2.imread(str(path)) is None:
                advice = "replace it by an intact copy, or switch test.visrank off"
                raise DPMError(f"image '{path}' cannot be read by OpenCV; {advice}") from error
        raise
