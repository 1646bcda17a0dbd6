"""The rows of an evaluation: which distances each one has, computed when they are asked for.

A row is named ``space/mask``: the feature ``before`` or ``after`` the neck, the query's mask ``off``, ``on`` or, as
controls, ``shuffled`` over the queries or ``static``, the gallery's mean mask for all of them. A gain that survives a
control is not the mask seeing its image.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dpm_plugin import torchreid_host
from dpm_plugin.evaluation.extract import Features
from dpm_plugin.evaluation.rerank import check_memory, k_reciprocal, masked_reranking
from dpm_plugin.evaluation.search import MaskedBlocks
from dpm_plugin.method.retrieval import query_mask_distance, shuffled_masks, static_masks

SPACES = {"before": "cls", "after": "embedding"}  # field of Features that holds it
RERANKED = "+rerank"  # ends the name of a re-ranked row


class Distances(NamedTuple):
    """One row's distances: ``matrix`` computes all, (Q, G), and ``blocks`` what the streamed metric takes."""

    matrix: Callable[[], Any]
    blocks: Callable[[], Any] | None = None


def row_distances(
    query: Features, gallery: Features, feature: str, mask: bool, rerank: bool, dist_metric: str, normalize: bool
) -> tuple[str, dict[str, Distances]]:
    """The headline's name, and row name -> distances in printing order.

    Arguments: as in :func:`dpm_plugin.evaluation.protocol.evaluate`. Raises DPMError without the memory for re-ranking.
    """
    if rerank:
        check_memory(len(query), len(gallery))
    distances = {}
    if query.cls is None:  # a stock model
        headline, q, g = "embedding", query.embedding, gallery.embedding  # (Q, D), (G, D)
        between = partial(_torchreid_distance, dist_metric, normalize)
        blocks = lambda: lambda g_rows: lambda q_rows: between(q[q_rows], g[g_rows])
        distances[headline] = Distances(partial(between, q, g), blocks)
        reranked = partial(_stock_reranking, between, q, g)
    else:
        masks = {"off": None} if query.mask is None else {"off": None, "on": query.mask}
        rows = {}
        for space, name in SPACES.items():
            for switch, values in masks.items():
                rows[f"{space}/{switch}"] = getattr(query, name), getattr(gallery, name), values
        headline = f"{feature}/on" if mask and "on" in masks else f"{feature}/off"
        if query.mask is not None and gallery.mask is not None and len(query) > 1:
            rows[f"{feature}/shuffled"] = *rows[headline][:2], shuffled_masks(query.mask)
            rows[f"{feature}/static"] = *rows[headline][:2], static_masks(query.mask, gallery.mask)
        for name, row in rows.items():
            distances[name] = Distances(partial(query_mask_distance, *row), partial(MaskedBlocks, *row))
        reranked = partial(masked_reranking, *rows[headline])
    if rerank:
        headline += RERANKED
        distances[headline] = Distances(reranked)
    return headline, distances


def _stock_reranking(between: Callable[[Tensor, Tensor], Tensor], query: Tensor, gallery: Tensor) -> Any:
    images = torch.cat([query, gallery])  # (Q + G, D)
    return k_reciprocal(lambda part: between(images[part], images).square_(), len(query), len(gallery))


def _torchreid_distance(metric: str, normalize: bool, left: Tensor, right: Tensor) -> Tensor:
    pair = [F.normalize(rows.float(), dim=1) if normalize else rows.float() for rows in (left, right)]
    return torchreid_host.metrics.compute_distance_matrix(*pair, metric)
