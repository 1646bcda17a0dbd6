"""From extracted features to the table of results: checks, distances, metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from dpm_plugin.evaluation import metric
from dpm_plugin.evaluation.distances import RERANKED, SPACES, row_distances
from dpm_plugin.evaluation.extract import Features
from dpm_plugin.evaluation.mask_report import MaskReport
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.timing import measure

DIST_METRICS = ("euclidean", "cosine")
CMC_LENGTH = 50  # torchreid's
CHECKED_ROWS = 4096
NAMED = 5  # queries without a match
MATRIX_LIMIT = 2 * 1024**3  # bytes of the largest distance matrix; beyond it, CMC and mAP are streamed


class Row(NamedTuple):
    """CMC curve, (R,) float32 in [0, 1] from rank 1 on, and mAP in [0, 1]."""

    cmc: np.ndarray
    mAP: float

    @property
    def rank1(self) -> float:
        return float(self.cmc[0])


@dataclass
class Result:
    """Rows by name in printing order, and which of them is the headline (the one to report and to select by).

    ``phases`` holds seconds and peak memory as :func:`dpm_plugin.utils.timing.measure` writes them; callers add
    theirs (extraction). ``distmat`` is the headline's (Q, G) float32 distances where they were asked for.
    ``unmatched`` names the first few queries that have no image to find; callers add what ``masks`` are like.
    """

    headline: str
    rows: dict[str, Row]
    ranks: tuple[int, ...]
    counts: metric.MatchingCounts
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    distmat: np.ndarray | None = None
    unmatched: Sequence[str] = ()
    masks: MaskReport | None = None

    @property
    def rank1(self) -> float:
        return self.rows[self.headline].rank1

    @property
    def mAP(self) -> float:
        return self.rows[self.headline].mAP


def evaluate(
    query: Features,
    gallery: Features,
    *,
    ranks: Sequence[int] = (1, 5, 10, 20),
    feature: str = "after",
    mask: bool = True,
    dist_metric: str = "cosine",
    normalize_feature: bool = False,
    use_metric_cuhk03: bool = False,
    rerank: bool = False,
    keep_distmat: bool = False,
) -> Result:
    """Every row that the features of one model allow, from one extraction.

    With a mask: before/off, before/on, after/off, after/on and, of two queries or more, the shuffled and the static
    control in the headline's space. A baseline (``cls`` but no mask): before/off, after/off. These rows are always the
    (masked) cosine. A stock model (``embedding`` alone): one row ``embedding``, by torchreid's distance. CMC and mAP
    are of :func:`dpm_plugin.evaluate_rank`. Where the (Q, G) matrix would be larger than 2 GiB (as 12,000 queries x
    44,000 images), it is not built and they are counted chunk by chunk, with the same result up to rounding; their
    phase "metric" then includes the distances. The CUHK03 protocol and re-ranking need the matrix whatever its size.

    Args:
        ranks: 1-based ranks to report, default 1, 5, 10, 20.
        feature: space of the headline row, "after" (default) or "before" the neck.
        mask: headline row with the mask on (default True); off for a model that has none.
        dist_metric: "cosine" (default) or "euclidean", for a stock model only.
        normalize_feature: L2-normalise first, for a stock model only (a cosine row is normalised anyway).
        use_metric_cuhk03: torchreid's cuhk03 protocol; it samples, from numpy's global random state.
        rerank: add the headline re-ranked (:mod:`dpm_plugin.evaluation.rerank`); that row becomes the headline.
        keep_distmat: keep the headline's distances in the result, for visualisation.

    Raises:
        DPMError: an unknown option, features that are empty, do not fit or are not finite (says how many and
            where), a rank beyond the gallery, no query with a match, no memory for re-ranking, or distances to
            keep beyond the limit.
    """
    _check_options(feature, dist_metric, ranks, len(gallery))
    _check_features(query, gallery)
    size = 4 * len(query) * len(gallery)  # bytes of one matrix
    streamed = size > MATRIX_LIMIT and not use_metric_cuhk03
    if streamed and keep_distmat and not rerank:
        images, take = f"{len(query)} x {len(gallery)} images", f"{1e-9 * size:.3g} GB"
        raise DPMError(f"the distances of {images} would take {take} and are not kept; switch test.visrank off")
    labels = (query.pids, gallery.pids, query.camids, gallery.camids)
    counts = metric.matching_counts(*labels)
    unmatched = [_name(query, index) for index in metric.unmatched_queries(*labels)[:NAMED]]
    headline, distances = row_distances(query, gallery, feature, mask, rerank, dist_metric, normalize_feature)
    result = Result(headline, {}, tuple(ranks), counts, unmatched=unmatched)
    max_rank = min(max(CMC_LENGTH, *ranks), len(gallery))
    for name, row in distances.items():  # one matrix is alive at a time
        if streamed and row.blocks is not None:
            with measure(result.phases, "metric", query.embedding.device):
                cmc, mAP = metric.streamed_evaluate_rank(row.blocks(), *labels, max_rank=max_rank)
        else:
            phase = "rerank" if name.endswith(RERANKED) else "distance"
            with measure(result.phases, phase, query.embedding.device):
                distmat = np.asarray(torch.as_tensor(row.matrix()).cpu())  # (Q, G)
            with measure(result.phases, "metric"):
                cmc, mAP = metric.evaluate_rank(distmat, *labels, max_rank, use_metric_cuhk03)
            if keep_distmat and name == headline:
                result.distmat = distmat
        if len(cmc) < max(ranks):  # the cuhk03 protocol ranks identities, not images
            raise DPMError(f"rank {max(ranks)} was asked for, but only {len(cmc)} identities can be ranked")
        result.rows[name] = Row(cmc, float(mAP))
    return result


def _check_options(feature: str, dist_metric: str, ranks: Sequence[int], gallery_size: int) -> None:
    for name, value, choices in (("feature", feature, SPACES), ("dist_metric", dist_metric, DIST_METRICS)):
        if value not in choices:
            raise DPMError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
    if len(ranks) == 0 or min(ranks) < 1:
        raise DPMError(f"ranks are 1-based and at least one, got {list(ranks)}")
    if max(ranks) > gallery_size:
        raise DPMError(f"rank {max(ranks)} was asked for, but the gallery has {gallery_size} images; lower test.ranks")


def _check_features(query: Features, gallery: Features) -> None:
    all_shapes = {}
    for side, features in (("query", query), ("gallery", gallery)):
        shapes = all_shapes[side] = {name: tuple(value.shape) for name, value in features.tensors().items()}
        if len(set(shapes.values())) > 1 or len(shapes["embedding"]) != 2:
            raise DPMError(f"{side} features do not fit each other: {shapes}; expected (n, D) for each")
        lengths = (len(features), len(features.pids), len(features.camids))
        if len(set(lengths)) > 1 or lengths[0] == 0:
            has = "{} features, {} identities and {} cameras".format(*lengths)
            raise DPMError(f"{side} has {has}; expected one of each for every image, and at least one image")
        for name, rows in features.tensors().items():
            # In parts: isfinite takes temporaries of its argument's size.
            bad = torch.cat([~part.isfinite().all(dim=1) for part in rows.split(CHECKED_ROWS)]).nonzero()
            if len(bad):
                quote = "'" if len(features.paths) else ""
                found = f"{len(bad)} of {len(rows)} images have NaN or infinite values, the first is {quote}"
                cause = "the model has diverged or its weights are damaged (try train.amp off)"
                raise DPMError(f"{side} {name}: {found}{_name(features, int(bad[0]))}{quote}; {cause}")
    if query.embedding.shape[1] != gallery.embedding.shape[1] or (query.cls is None) != (gallery.cls is None):
        sides = ", ".join(f"{side} {shapes}" for side, shapes in all_shapes.items())
        raise DPMError(f"query and gallery features are not of one model: {sides}")


def _name(features: Features, index: int) -> str:
    return str(features.paths[index]) if len(features.paths) else f"image {index}"


def format_table(result: Result) -> str:
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


def format_headline(result: Result) -> str:
    """The headline in torchreid's words."""
    lines = ["** Results **", f"mAP: {result.mAP:.1%}", "CMC curve"]
    lines += [f"Rank-{rank:<3}: {result.rows[result.headline].cmc[rank - 1]:.1%}" for rank in result.ranks]
    return "\n".join(lines)


def format_targets(sources: str, found: Mapping[str, tuple[float, float]]) -> str:
    """A table of one run: what it was trained on × what it was tested on, (rank-1, mAP) of the headline row each."""
    cells = {target: f"{rank1:.1%} / {mAP:.1%}" for target, (rank1, mAP) in found.items()}
    widths = {target: max(len(target), len(cell)) for target, cell in cells.items()}
    first = max(len(sources), len("trained on"))
    header = "  ".join([f"{'trained on':<{first}}", *(f"{target:>{width}}" for target, width in widths.items())])
    row = "  ".join([f"{sources:<{first}}", *(f"{cells[target]:>{width}}" for target, width in widths.items())])
    return f"** All targets: rank-1 / mAP **\n{header}\n{row}"
