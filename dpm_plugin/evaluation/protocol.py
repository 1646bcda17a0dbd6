"""From extracted features to the table of results: one extraction, all rows.

A row is named ``space/mask``: the feature ``before`` or ``after`` the neck, the query's mask ``off``, ``on``
or, as a control, ``shuffled`` over the queries (a gain that survives it is not the mask seeing its image).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from dpm_plugin import torchreid_host
from dpm_plugin.evaluation.metric import (
    MatchingCounts,
    evaluate_rank,
    matching_counts,
    streamed_evaluate_rank,
    unmatched_queries,
)
from dpm_plugin.evaluation.rerank import check_memory, masked_reranking, rerank_distances
from dpm_plugin.evaluation.search import MaskedBlocks
from dpm_plugin.method.retrieval import query_mask_distance, shuffled_masks
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.timing import measure

SPACES = {"before": "cls", "after": "embedding"}  # field of Features that holds it
DIST_METRICS = ("euclidean", "cosine")
CMC_LENGTH = 50  # torchreid's
CHECKED_ROWS = 4096
NAMED = 5  # queries without a match
RERANKED = "+rerank"  # ends the name of a re-ranked row
MATRIX_LIMIT = 2 * 1024**3  # bytes of the largest distance matrix; beyond it, CMC and mAP are streamed


@dataclass
class Features:
    """What a model says about n images.

    Attributes:
        embedding: (n, D) float tensor after the neck; for a stock torchreid model its only output.
        pids, camids: n identities and cameras.
        cls: (n, D) float tensor before the neck, or None for a stock model.
        mask: (n, D) float tensor, or None for models without a mask.
        paths: n file names for error messages, optional.
    """

    embedding: torch.Tensor
    pids: Sequence[int]
    camids: Sequence[int]
    cls: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    paths: Sequence[str] | None = None

    def __post_init__(self):
        self.pids, self.camids = np.asarray(self.pids), np.asarray(self.camids)

    def __len__(self):
        return len(self.embedding)

    def tensors(self):
        named = {"cls": self.cls, "embedding": self.embedding, "mask": self.mask}
        return {name: value for name, value in named.items() if value is not None}


class Row(NamedTuple):
    """CMC curve, (R,) float32 in [0, 1] from rank 1 on, and mAP in [0, 1]."""

    cmc: np.ndarray
    mAP: float

    @property
    def rank1(self):
        return float(self.cmc[0])


@dataclass
class Result:
    """Rows by name in printing order, and which of them is the headline (the one to report and to select by).

    ``phases`` holds seconds and peak memory as :func:`dpm_plugin.utils.timing.measure` writes them; callers add
    theirs (extraction). ``distmat`` is the headline's (Q, G) float32 distances where they were asked for.
    ``unmatched`` names the first few queries that have no image to find.
    """

    headline: str
    rows: dict
    ranks: tuple
    counts: MatchingCounts
    phases: dict = field(default_factory=dict)
    distmat: np.ndarray | None = None
    unmatched: Sequence[str] = ()

    @property
    def rank1(self):
        return self.rows[self.headline].rank1

    @property
    def mAP(self):
        return self.rows[self.headline].mAP


def evaluate(
    query,
    gallery,
    *,
    ranks=(1, 5, 10, 20),
    feature="after",
    mask=True,
    dist_metric="cosine",
    normalize_feature=False,
    use_metric_cuhk03=False,
    rerank=False,
    shuffled_control=True,
    seed=0,
    keep_distmat=False,
    matrix_limit=MATRIX_LIMIT,
):
    """Every row that the features allow, from one extraction.

    With a mask: before/off, before/on, after/off, after/on and the shuffled control of the headline's space.
    A baseline (``cls`` but no mask): before/off, after/off. These rows are always the (masked) cosine. A
    stock model (``embedding`` alone): one row ``embedding``, by torchreid's distance. CMC and mAP are of
    :func:`dpm_plugin.evaluate_rank`, which is torchreid's compiled metric where that is built. Where the (Q, G)
    matrix would be larger than ``matrix_limit``, it is not built and they are counted chunk by chunk, with the
    same result up to rounding (:mod:`dpm_plugin.evaluation.positives`); their phase "metric" then includes the
    distances. The CUHK03 protocol and re-ranking need the matrix whatever its size.

    Args:
        query, gallery: :class:`Features` of one model.
        ranks: 1-based ranks to report, default 1, 5, 10, 20.
        feature: space of the headline row, "after" (default) or "before" the neck.
        mask: headline row with the mask on (default True); off for a model that has none.
        dist_metric: "cosine" (default) or "euclidean", for a stock model only.
        normalize_feature: L2-normalise first, for a stock model only (a cosine row is normalised anyway).
        use_metric_cuhk03: torchreid's cuhk03 protocol; it samples, from numpy's global random state.
        rerank: add the headline re-ranked (:mod:`dpm_plugin.evaluation.rerank`); that row becomes the headline.
        shuffled_control: include the control row, default True; it needs two queries.
        seed: of the control's permutation.
        keep_distmat: keep the headline's distances in the result, for visualisation.
        matrix_limit: bytes, default 2 GiB (as 12,000 queries x 44,000 images).

    Returns:
        :class:`Result`.

    Raises:
        DPMError: an unknown option, features that are empty, do not fit or are not finite (says how many and
            where), a rank beyond the gallery, no query with a match, no memory for re-ranking, or distances to
            keep beyond the limit.
    """
    _check_options(feature, dist_metric, ranks, len(gallery))
    _check_features(query, gallery)
    counts = matching_counts(query.pids, gallery.pids, query.camids, gallery.camids)
    if rerank:
        check_memory(len(query) + len(gallery))
    distances = _distances(query, gallery, feature, shuffled_control, seed, dist_metric, normalize_feature)
    headline = _headline(query, feature, mask)
    if rerank:
        reranked = _reranked(query, gallery, headline, dist_metric, normalize_feature)
        distances[headline + RERANKED] = _Distance(reranked)
        headline += RERANKED

    streamed = not use_metric_cuhk03 and 4 * len(query) * len(gallery) > matrix_limit
    if streamed and keep_distmat and not rerank:
        raise DPMError(
            f"the distances of {len(query)} x {len(gallery)} images would take "
            f"{4e-9 * len(query) * len(gallery):.3g} GB and are not kept; switch test.visrank off"
        )

    labels = (query.pids, gallery.pids, query.camids, gallery.camids)
    unmatched = [_name(query, index) for index in unmatched_queries(*labels)[:NAMED]]
    result = Result(headline, {}, tuple(ranks), counts, unmatched=unmatched)
    max_rank = min(max(CMC_LENGTH, *ranks), len(gallery))
    for name, distance in distances.items():
        if streamed and distance.blocks is not None:
            with measure(result.phases, "metric", query.embedding.device):
                cmc, mAP = streamed_evaluate_rank(distance.blocks(), *labels, max_rank=max_rank)
        else:
            phase = "rerank" if name.endswith(RERANKED) else "distance"
            with measure(result.phases, phase, query.embedding.device):
                distmat = np.asarray(torch.as_tensor(distance.matrix()).cpu())  # (Q, G)
            with measure(result.phases, "metric"):
                cmc, mAP = evaluate_rank(distmat, *labels, max_rank=max_rank, use_metric_cuhk03=use_metric_cuhk03)
            if keep_distmat and name == headline:
                result.distmat = distmat
        if len(cmc) < max(ranks):  # the cuhk03 protocol ranks identities, not images
            raise DPMError(f"rank {max(ranks)} was asked for, but only {len(cmc)} identities can be ranked")
        result.rows[name] = Row(cmc, float(mAP))
    return result


class _Distance(NamedTuple):
    """One row's distances: ``matrix`` computes all, (Q, G), and ``blocks`` what the streamed metric takes."""

    matrix: Callable
    blocks: Callable | None = None


def _distances(query, gallery, feature, shuffled_control, seed, dist_metric, normalize_feature):
    """Row name -> :class:`_Distance`; one matrix is alive at a time."""
    if query.cls is None:
        arguments = (query.embedding, gallery.embedding, dist_metric, normalize_feature)
        return {"embedding": _Distance(partial(_stock_distance, *arguments), partial(_stock_blocks, *arguments))}

    def masked(space, query_mask):
        arguments = (*_in_space(query, gallery, space), query_mask)
        return _Distance(partial(query_mask_distance, *arguments), partial(MaskedBlocks, *arguments))

    distances = {}
    for space in SPACES:
        distances[f"{space}/off"] = masked(space, None)
        if query.mask is not None:
            distances[f"{space}/on"] = masked(space, query.mask)
    if query.mask is not None and shuffled_control and len(query) > 1:
        distances[f"{feature}/shuffled"] = masked(feature, shuffled_masks(query.mask, seed))
    return distances


def _headline(query, feature, mask):
    if query.cls is None:
        return "embedding"
    return f"{feature}/on" if mask and query.mask is not None else f"{feature}/off"


def _reranked(query, gallery, headline, dist_metric, normalize_feature):
    if query.cls is None:
        query, gallery = query.embedding, gallery.embedding
        pairs = ((query, gallery), (query, query), (gallery, gallery))
        return lambda: rerank_distances(*(_stock_distance(*pair, dist_metric, normalize_feature) for pair in pairs))
    space, switch = headline.split("/")
    query_mask = query.mask if switch == "on" else None
    return lambda: masked_reranking(*_in_space(query, gallery, space), query_mask)


def _in_space(query, gallery, space):
    return getattr(query, SPACES[space]), getattr(gallery, SPACES[space])


def _stock_distance(query, gallery, dist_metric, normalize_feature):
    features = [rows.float() for rows in (query, gallery)]  # (Q, D), (G, D)
    if normalize_feature:
        features = [F.normalize(rows, dim=1) for rows in features]
    return torchreid_host.metrics.compute_distance_matrix(*features, dist_metric)


def _stock_blocks(query, gallery, *options):
    """``blocks`` of the streamed metric, by :func:`_stock_distance`."""
    return lambda gallery_rows: lambda query_rows: _stock_distance(query[query_rows], gallery[gallery_rows], *options)


def _check_options(feature, dist_metric, ranks, gallery_size):
    for name, value, choices in (("feature", feature, SPACES), ("dist_metric", dist_metric, DIST_METRICS)):
        if value not in choices:
            raise DPMError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
    if len(ranks) == 0 or min(ranks) < 1:
        raise DPMError(f"ranks are 1-based and at least one, got {list(ranks)}")
    if max(ranks) > gallery_size:
        raise DPMError(f"rank {max(ranks)} was asked for, but the gallery has {gallery_size} images; lower test.ranks")


def _check_features(query, gallery):
    for side, features in (("query", query), ("gallery", gallery)):
        shapes = {name: tuple(value.shape) for name, value in features.tensors().items()}
        if len(set(shapes.values())) > 1 or len(shapes["embedding"]) != 2:
            raise DPMError(f"{side} features do not fit each other: {shapes}; expected (n, D) for each")
        lengths = (len(features), len(features.pids), len(features.camids))
        if len(set(lengths)) > 1 or lengths[0] == 0:
            raise DPMError(
                f"{side} has {lengths[0]} features, {lengths[1]} identities and {lengths[2]} cameras; "
                "expected one of each for every image, and at least one image"
            )
        _check_finite(side, features)
    if query.embedding.shape[1] != gallery.embedding.shape[1] or (query.cls is None) != (gallery.cls is None):
        raise DPMError(
            f"query and gallery features are not of one model: query {_describe(query)}, gallery {_describe(gallery)}"
        )


def _name(features, index):
    return f"image {index}" if features.paths is None else str(features.paths[index])


def _check_finite(side, features):
    for name, rows in features.tensors().items():
        # In parts: isfinite takes temporaries of its argument's size.
        bad = torch.nonzero(torch.cat([~part.isfinite().all(dim=1) for part in rows.split(CHECKED_ROWS)])).flatten()
        if len(bad):
            quote = "" if features.paths is None else "'"
            raise DPMError(
                f"{side} {name}: {len(bad)} of {len(rows)} images have NaN or infinite values, the first is {quote}"
                f"{_name(features, int(bad[0]))}{quote}; the model has diverged or its weights are damaged (try "
                "train.amp off)"
            )


def _describe(features):
    return {name: tuple(value.shape) for name, value in features.tensors().items()}


def format_table(result):
    """The rows as text, in percent, ``*`` before the headline."""
    columns = ["mAP"] + [f"R-{rank}" for rank in result.ranks]
    lines = [f"  {'row':<16}" + " ".join(f"{column:>6}" for column in columns)]
    for name, row in result.rows.items():
        values = [row.mAP] + [row.cmc[rank - 1] for rank in result.ranks]
        marker = "*" if name == result.headline else " "
        lines.append(f"{marker} {name:<16}" + " ".join(f"{100 * value:6.1f}" for value in values))
    if result.counts.unmatched_queries:
        more = ", ..." if result.counts.unmatched_queries > len(result.unmatched) else ""
        lines.append(f"{result.counts.unmatched_message()}: {', '.join(result.unmatched)}{more}")
    return "\n".join(lines)


def format_headline(result):
    """The headline in torchreid's words."""
    lines = ["** Results **", f"mAP: {result.mAP:.1%}", "CMC curve"]
    lines += [f"Rank-{rank:<3}: {result.rows[result.headline].cmc[rank - 1]:.1%}" for rank in result.ranks]
    return "\n".join(lines)
