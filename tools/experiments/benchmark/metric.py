"""CMC and mAP: against torchreid's Python metric, and streamed against the whole matrix at growing sizes."""

import numpy as np
import torch

from dpm_plugin import torchreid_host
from dpm_plugin.evaluation.metric import evaluate_rank, streamed_evaluate_rank
from dpm_plugin.evaluation.search import MaskedBlocks
from dpm_plugin.method.retrieval import query_mask_distance
from experiments.benchmark.features import draw, draw_masks
from experiments.benchmark.report import compared
from experiments.benchmark.timing import scaled, take_turns

PAPER = (2_210, 17_661, 1_110)  # queries, gallery images and identities of Occluded-Duke
TINY = (30, 200, 10)
LOOPED = 100  # of the queries, for torchreid's function; it takes most of a minute for all
TINY_LOOPED = 10
CAMERAS = 8
STREAMED = (100, 768, (10_000, 100_000, 1_000_000))  # queries, width, gallery sizes
TINY_STREAMED = (20, 32, (200, 1_000))
PER_IDENTITY = 20  # gallery images


def run(settings):
    """Yields the comparison with torchreid, then the streamed metric at each gallery size."""
    yield _against_torchreid(settings)
    queries, dim, sizes = TINY_STREAMED if settings.tiny else STREAMED
    for size in sizes:
        yield _streamed(settings, queries, dim, size)


def _against_torchreid(settings):
    queries, images, identities = TINY if settings.tiny else PAPER
    looped = TINY_LOOPED if settings.tiny else LOOPED
    rng = np.random.default_rng(0)
    distmat = rng.random((queries, images), dtype=np.float32)
    q_pids, g_pids = (rng.integers(0, identities, count) for count in (queries, images))
    q_camids, g_camids = np.zeros(queries, int), rng.integers(1, CAMERAS, images)  # so that every query has a match

    def ours(count):
        return evaluate_rank(distmat[:count], q_pids[:count], g_pids, q_camids[:count], g_camids, use_cython=False)

    timings = take_turns(
        {
            "torchreid": lambda: torchreid_host.metrics.evaluate_rank(
                distmat[:looped], q_pids[:looped], g_pids, q_camids[:looped], g_camids, use_cython=False
            ),
            "ours": lambda: ours(queries),
        },
        rounds=settings.rounds,
    )
    timings["torchreid"] = scaled(timings["torchreid"], queries / looped)
    case = (
        f"CMC and mAP {queries:,} x {images:,}, on the CPU; torchreid's Python function measured on {looped} "
        "queries and scaled"
    )
    return compared(
        "metric", case, timings, plain="torchreid", difference=_difference(timings["torchreid"].result, ours(looped))
    )


def _streamed(settings, queries, dim, size):
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

    timings = take_turns({"whole matrix": whole, "ours": ours}, rounds=settings.rounds, device=settings.device)
    difference = _difference(timings["whole matrix"].result, timings["ours"].result)
    return compared(
        "metric",
        f"distance, CMC and mAP {queries:,} x {size:,} x {dim}, streamed",
        timings,
        plain="whole matrix",
        difference=difference,
    )


def _difference(left, right):
    return max(float(np.abs(left[0] - right[0]).max()), abs(float(left[1] - right[1])))
