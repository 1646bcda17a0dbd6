"""What the queries' masks are like: how many directions they use and, with parts, whether they see what is hidden."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

LEAST = 0.01  # of the person's pixels: a stripe with less has no visible share


class MaskReport(NamedTuple):
    """Of the masks of Q queries.

    Attributes:
        directions: participation ratio of the masks' covariance, from 1 (all differ along one line) up to D.
        parts: rank correlation over the queries between each part's mean mask and the visible share of its stripe,
            from -1 to 1; None without parts, or where the data set does not know what is hidden.
        overall: the same over all pairs of query and part, whose masks are taken relative to the part's mean in the
            gallery: whether hidden parts count less than visible ones. None as ``parts``.
    """

    directions: float
    parts: list[float] | None = None
    overall: float | None = None

    @property
    def mean(self) -> float | None:
        """The mean of ``parts``."""
        return None if self.parts is None else float(np.mean(self.parts))

    def __str__(self) -> str:
        text = f"masks: they use {self.directions:.1f} directions"
        if self.parts is None:
            return text
        each = ", ".join(f"{value:.2f}" for value in self.parts)
        return f"{text}; parts follow their visible share by a rank correlation of {self.overall:.2f} ({each} each)"


def participation_ratio(mask: Tensor) -> float:
    """(sum of eigenvalues)^2 / sum of their squares, of the covariance of the rows of (Q, D); 0 where all are equal."""
    centred = mask.double() - mask.double().mean(dim=0)  # (Q, D)
    gram = centred.T @ centred if mask.shape[1] < len(mask) else centred @ centred.T  # the same eigenvalues
    squares = gram.square().sum()
    return float(gram.trace().square() / squares) if squares > 0 else 0.0


def visible_shares(records: Sequence[Mapping[str, Any]], parts: int) -> np.ndarray:
    """Visible share of the person in each stripe, (Q, K) from 0 to 1; NaN where less than 1 % of the person is in it.

    Args:
        records: Q entries with ``person_bands`` and ``hidden_bands`` as in ``visibility.json``.
        parts: number K of stripes.
    """
    person, hidden = (_in_stripes([each[side] for each in records], parts) for side in ("person_bands", "hidden_bands"))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(person >= LEAST, 1 - hidden / person, np.nan)


def _in_stripes(bands, parts):
    """Sums of bands, (Q, bands) to (Q, K), where a band may lie in two stripes."""
    sums = np.pad(np.cumsum(bands, axis=1), ((0, 0), (1, 0)))
    edges = np.linspace(0, sums.shape[1] - 1, parts + 1)
    return np.diff(np.stack([np.interp(edges, np.arange(sums.shape[1]), row) for row in sums]), axis=1)


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Spearman's, of two (n,) arrays, equal values at their mean rank; NaN where one of them is constant."""
    ranks: list[np.ndarray] = []
    for values in (left, right):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def report_masks(mask: Tensor, weights: Tensor | None, records: Sequence[Mapping[str, Any]]) -> MaskReport:
    """What the masks (Q, D) are like.

    Args:
        weights: (Q, K) how much each part counts (:func:`~dpm_plugin.method.part_features.part_weights`); None without
            parts.
        records: Q entries of ``visibility.json`` in the queries' order; empty where the data set has none.
    """
    directions = participation_ratio(mask)
    if weights is None or not records or not all("person_bands" in each for each in records):
        return MaskReport(directions)
    counted, visible = weights.numpy(), visible_shares(records, weights.shape[1])  # (Q, K) each
    known, found = ~np.isnan(visible), []
    for part in range(weights.shape[1]):
        rows = known[:, part]
        found.append(rank_correlation(counted[rows, part], visible[rows, part]))
    found = [value for value in found if not np.isnan(value)]  # nothing is ever hidden in that stripe
    if not found:
        return MaskReport(directions)
    return MaskReport(directions, found, rank_correlation(counted[known], visible[known]))
