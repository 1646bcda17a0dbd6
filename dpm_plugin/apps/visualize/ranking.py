"""One query's ranked gallery, without junk and ordered as in the metric."""

from typing import NamedTuple

import numpy as np

# A smaller change of the average precision says nothing of the query's mask: on the synthetic benchmark that of another
# query changes it by this much for 7 % of the queries, and by 0.001 for half of them.
MARGIN = 0.05


class Ranking(NamedTuple):
    """G' gallery images from the most to the least similar."""

    order: np.ndarray  # (G',) positions in the gallery set
    similarity: np.ndarray  # (G',) cosine similarities, descending
    right: np.ndarray  # (G',) bool, whether the image is a positive: one of the query's identity

    @property
    def first_match(self) -> int | None:
        """Rank of the first positive, from 1; None where there is none."""
        return int(self.right.argmax()) + 1 if self.right.any() else None

    @property
    def average_precision(self) -> float | None:
        """The query's share of mAP, in [0, 1]; None without positive."""
        ranks = np.flatnonzero(self.right) + 1
        return float(np.mean(np.arange(1, len(ranks) + 1) / ranks)) if len(ranks) else None

    def rank_of(self, position: int) -> int:
        """Rank, from 1, of the gallery image at ``position`` of the gallery set."""
        return int(np.flatnonzero(self.order == position)[0]) + 1


def rank_gallery(
    distance: np.ndarray, pid: int, camid: int, gallery_pids: np.ndarray, gallery_camids: np.ndarray
) -> Ranking:
    """Rank the gallery for one query as :func:`dpm_plugin.evaluate_rank` does, from (G,) cosine distances.

    Junk, the images of the query's own identity under its own camera, is left out; equal distances keep the order
    of the gallery.
    """
    order = np.argsort(distance, kind="stable")
    order = order[(gallery_pids[order] != pid) | (gallery_camids[order] != camid)]
    return Ranking(order, 1 - distance[order], gallery_pids[order] == pid)


def outcome(off: Ranking, on: Ranking | None) -> str | None:
    """What the mask did to one query: "helped", "hurt" or, for a change below MARGIN, "same" average precision.

    None where ``on``, the ranking with the mask, is None, and without positive.
    """
    before, after = off.average_precision, None if on is None else on.average_precision
    if before is None or after is None:
        return None
    gain = after - before
    return "same" if abs(gain) < MARGIN else "helped" if gain > 0 else "hurt"
