"""The masked distance of Occluded-Duke's size: against a loop over the queries, and against its bare products."""

import torch

from dpm_plugin.method.retrieval import query_mask_distance
from experiments.benchmark.features import draw, draw_masks
from experiments.benchmark.report import compared
from experiments.benchmark.timing import scaled, take_turns
from experiments.oracles import plain_retrieval

PAPER = (2_210, 17_661, 768)  # queries and gallery of Occluded-Duke, width of ViT-B
TINY = (30, 200, 32)
LOOPED = 50  # of the queries, for the loop; it takes minutes for all
TINY_LOOPED = 10


def run(settings):
    """Yields the comparison with the loop, then with the two products."""
    plain = plain_retrieval
    queries, images, dim = TINY if settings.tiny else PAPER
    looped = TINY_LOOPED if settings.tiny else LOOPED
    query, gallery = (
        draw(count, dim, seed=seed, device=settings.device).rows for seed, count in enumerate((queries, images))
    )
    mask = draw_masks(queries, dim, device=settings.device)
    some = slice(0, looped)
    products = [query.new_empty(queries, images) for _ in range(2)]

    def bare():
        torch.mm(query, gallery.T, out=products[0])
        torch.mm(mask, gallery.T, out=products[1])

    timings = take_turns(
        {
            "loop": lambda: plain.masked_distance(query[some], gallery, mask[some]),
            "bare": bare,
            "ours": lambda: query_mask_distance(query, gallery, mask),
        },
        rounds=settings.rounds,
        device=settings.device,
    )
    timings["loop"] = scaled(timings["loop"], queries / looped)
    difference = float((timings["loop"].result - timings["ours"].result[some]).abs().max())
    case = f"masked distance {queries:,} x {images:,} x {dim}, float32"
    chosen = {name: timings[name] for name in ("loop", "ours")}
    yield compared(
        "retrieval",
        f"{case}; the loop measured on {looped} queries and scaled",
        chosen,
        plain="loop",
        difference=difference,
    )
    chosen = {name: timings[name] for name in ("bare", "ours")}
    comparison = compared("retrieval", f"{case}, against its two bare matrix products", chosen, plain="bare")
    comparison.extra["ours / bare"] = 1 / comparison.ratio
    yield comparison
