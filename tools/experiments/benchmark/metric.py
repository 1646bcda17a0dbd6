"""CMC and mAP: against torchreid's Python metric, and streamed against the whole matrix at growing sizes."""

from collections.abc import Iterator

import numpy as np
import torch

from dpm_plugin import torchreid_host
from dpm_plugin.evaluation.metric import evaluate_rank, streamed_evaluate_rank
from dpm_plugin.evaluation.search import MaskedBlocks
from dpm_plugin.method.retrieval import query_mask_distance
from experiments.benchmark.features import draw, draw_masks
from experiments.benchmark.report import Comparison, compared
from experiments.benchmark.settings import Settings
from experiments.benchmark.timing import scaled, take_turns

# Queries, gallery images, identities of Occluded-Duke; queries of torchreid's function, which takes a minute for all.
PAPER, TINY = (2_210, 17_661, 1_110, 100), (30, 200, 10, 10)
CAMERAS = 8
STREAMED = (100, 768, (10_000, 100_000, 1_000_000))  # queries, width, gallery sizes
TINY_STREAMED = (20, 32, (200, 1_000))
PER_IDENTITY = 20  # gallery images


def run(settings: Settings) -> Iterator[Comparison]:
    """The comparison with torchreid, then the streamed metric at each gallery size."""
    yield _against_torchreid(settings)
    queries, dim, sizes = settings.sizes(STREAMED, TINY_STREAMED)
    for size in sizes:
        yield _streamed(settings, queries, dim, size)


def _against_torchreid(settings: Settings) -> Comparison:
    queries, images, identities, looped = settings.sizes(PAPER, TINY)
    rng = np.random.default_rng(0)
    distmat = rng.random((queries, images), dtype=np.float32)
    q_pids, g_pids = (rng.integers(0, identities, count) for count in (queries, images))
    q_camids, g_camids = np.zeros(queries, int), rng.integers(1, CAMERAS, images)  # so that every query has a match

    def ranked(function, count):
        return function(distmat[:count], q_pids[:count], g_pids, q_camids[:count], g_camids, use_cython=False)

    timings = take_turns(
        {
            "torchreid": lambda: ranked(torchreid_host.metrics.evaluate_rank, looped),
            "ours": lambda: ranked(evaluate_rank, queries),
        },
        rounds=settings.rounds,
    )
    timings["torchreid"] = scaled(timings["torchreid"], queries / looped)
    case = (
        f"CMC and mAP {queries:,} x {images:,}, on the CPU; torchreid's Python function measured on {looped} "
        "queries and scaled"
    )
    difference = _difference(timings["torchreid"].result, ranked(evaluate_rank, looped))
    return compared("metric", case, timings, plain="torchreid", difference=difference)


def _streamed(settings: Settings, queries: int, dim: int, size: int) -> Comparison:
    identities = size // PER_IDENTITY
    query, gallery = (
        draw(count, dim, identities=identities, seed=seed, device=settings.device)
        for seed, count in ((1, queries), (0, size))
    )
    mask = draw_masks(queries, dim, device=settings.device)
    q_camids = torch.zeros(queries, dtype=torch.int64)
    labels = [each.numpy() for each in (query.pids, gallery.pids, q_camids, torch.ones(size, dtype=torch.int64))]

    def whole():
        distmat = query_mask_distance(query.rows, gallery.rows, mask)
        return evaluate_rank(distmat.cpu().numpy(), *labels, use_cython=False)

    def ours():
        return streamed_evaluate_rank(MaskedBlocks(query.rows, gallery.rows, mask), *labels)

    timings = settings.take_turns({"whole matrix": whole, "ours": ours})
    case = f"distance, CMC and mAP {queries:,} x {size:,} x {dim}, streamed"
    difference = _difference(timings["whole matrix"].result, timings["ours"].result)
    return compared("metric", case, timings, plain="whole matrix", difference=difference)


def _difference(left: tuple, right: tuple) -> float:
    return max(float(np.abs(left[0] - right[0]).max()), abs(float(left[1] - right[1])))
