"""The masked distance of Occluded-Duke's size: against a loop over the queries, and against its bare products."""

from collections.abc import Iterator

import torch

from dpm_plugin.method.retrieval import query_mask_distance
from experiments.benchmark.features import draw, draw_masks
from experiments.benchmark.report import Comparison, compared
from experiments.benchmark.settings import Settings
from experiments.benchmark.timing import scaled
from experiments.oracles import plain_retrieval

# Queries and gallery of Occluded-Duke, width of ViT-B; queries of the loop, which takes minutes for all.
PAPER, TINY = (2_210, 17_661, 768, 50), (30, 200, 32, 10)


def run(settings: Settings) -> Iterator[Comparison]:
    """The comparison with the loop, then with the two products."""
    queries, images, dim, looped = settings.sizes(PAPER, TINY)
    query, gallery = (
        draw(count, dim, seed=seed, device=settings.device).rows for seed, count in enumerate((queries, images))
    )
    mask = draw_masks(queries, dim, device=settings.device)
    some = slice(0, looped)
    products = [query.new_empty(queries, images) for _ in range(2)]

    def bare() -> None:
        torch.mm(query, gallery.T, out=products[0])
        torch.mm(mask, gallery.T, out=products[1])

    timings = settings.take_turns(
        {
            "loop": lambda: plain_retrieval.masked_distance(query[some], gallery, mask[some]),
            "bare": bare,
            "ours": lambda: query_mask_distance(query, gallery, mask),
        }
    )
    timings["loop"] = scaled(timings["loop"], queries / looped)
    difference = float((timings["loop"].result - timings["ours"].result[some]).abs().max())
    case = f"masked distance {queries:,} x {images:,} x {dim}, float32"
    name = f"{case}; the loop measured on {looped} queries and scaled"
    yield compared("retrieval", name, timings, plain="loop", difference=difference)
    comparison = compared("retrieval", f"{case}, against its two bare matrix products", timings, plain="bare")
    comparison.extra["ours / bare"] = 1 / comparison.ratio
    yield comparison
