"""Top-50 of galleries up to a million images: exact, memory-mapped, and approximate where faiss is installed."""

import importlib.util
import tempfile
from pathlib import Path

import torch

from dpm_plugin.evaluation.search import ApproximateIndex, Gallery, topk
from dpm_plugin.method.retrieval import query_mask_distance
from experiments.benchmark.features import draw, draw_masks
from experiments.benchmark.report import Comparison, compared
from experiments.benchmark.timing import take_turns
from experiments.oracles import plain_retrieval

QUERIES, DIM, K = 100, 768, 50
SIZES = (10_000, 100_000, 1_000_000)
TINY = (20, 32, 5)
TINY_SIZES = (200, 1_000)
PER_IDENTITY = 100  # images, where identities form clusters
# Name -> features, options of the index, options of its search.
APPROXIMATE = {
    "clustered": ({}, {"candidates": 200}),
    "clustered, split": ({"lists": 1024}, {"candidates": 200, "probes": 128}),
    "gaussian": ({}, {"candidates": 2000}),
    "gaussian, finer": ({"part": 2}, {"candidates": 1000}),
}
TINY_APPROXIMATE = {
    "clustered, split": ({"lists": 8}, {"candidates": 20, "probes": 2}),
    "gaussian": ({}, {"candidates": 50}),
}


def run(settings):
    """Yields the exact search at each size, once memory-mapped, then the approximate one at the largest."""
    sizes = TINY_SIZES if settings.tiny else SIZES
    case = _Case(settings, sizes[-1], clustered=False)
    for size in sizes:
        yield case.exact(size)
    yield case.memory_mapped(sizes[-2])
    if importlib.util.find_spec("faiss") is None:
        yield Comparison("search", "approximate: not measured, faiss is not installed (pip install faiss-cpu)")
        return
    chosen = TINY_APPROXIMATE if settings.tiny else APPROXIMATE
    for features in ("gaussian", "clustered"):
        if features == "clustered":
            del case  # its gallery, before the next one
            case = _Case(settings, sizes[-1], clustered=True)
        for name, (index, search) in chosen.items():
            if name.startswith(features):
                yield case.approximate(features, index, search)


class _Case:
    """Queries, masks and a gallery of unit rows."""

    def __init__(self, settings, size, clustered):
        self.settings = settings
        queries, dim, self.k = TINY if settings.tiny else (QUERIES, DIM, K)
        identities = size // PER_IDENTITY if clustered else None
        self.query = draw(queries, dim, identities=identities, seed=1, device=settings.device).rows
        self.mask = draw_masks(queries, dim, device=settings.device)
        self.rows = draw(size, dim, identities=identities, device=settings.device).rows
        for part in self.rows.split(10_000):
            part /= part.norm(dim=1, keepdim=True)

    def take_turns(self, contenders):
        return take_turns(contenders, rounds=self.settings.rounds, device=self.settings.device)

    def search(self, gallery):
        return topk(self.query, gallery, self.mask, self.k)

    def name(self, size):
        return f"top-{self.k} of {size:,} x {self.query.shape[1]}, {len(self.query)} queries"

    def exact(self, size):
        """Against the two matrix products and a top-k, with room for their results at hand."""
        rows, query, mask = self.rows[:size], self.query, self.mask
        products = [query.new_empty(len(query), size) for _ in range(2)]

        def bare():
            torch.mm(query, rows.T, out=products[0])
            torch.mm(mask, rows.T, out=products[1])
            return products[0].topk(self.k, dim=1)

        gallery = Gallery(rows, unit=True)
        timings = self.take_turns({"bare": bare, "ours": lambda: self.search(gallery)})
        expected, _ = plain_retrieval.nearest(query_mask_distance(query, rows, mask), self.k)
        case = f"{self.name(size)}, exact, against two bare matrix products and a top-k"
        comparison = compared(
            "search", case, timings, plain="bare", difference=float((timings["ours"].result[0] - expected).abs().max())
        )
        comparison.extra["ours / bare"] = 1 / comparison.ratio
        comparison.size, comparison.unit = size, "gallery images"
        return comparison

    def memory_mapped(self, size):
        """Against the same gallery in memory."""
        gallery = Gallery(self.rows[:size], unit=True)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gallery.npy"
            gallery.save(path)
            mapped = Gallery.open(path)
            timings = self.take_turns({"in memory": lambda: self.search(gallery), "ours": lambda: self.search(mapped)})
        difference = float((timings["ours"].result[0] - timings["in memory"].result[0]).abs().max())
        return compared(
            "search", f"{self.name(size)}, exact, memory-mapped", timings, plain="in memory", difference=difference
        )

    def approximate(self, features, index_options, search_options):
        """Against the exact search; the recall is of its result."""
        gallery = Gallery(self.rows, unit=True)
        built = take_turns({"build": lambda: _index(gallery, index_options)}, rounds=1, warmup=0)["build"]
        timings = self.take_turns(
            {
                "exact": lambda: self.search(gallery),
                "ours": lambda: built.result.search(self.query, self.mask, self.k, **search_options),
            }
        )
        exact, found = timings["exact"].result[1], timings["ours"].result[1]
        recall = float((exact[:, :, None] == found[:, None, :]).any(dim=2).float().mean())
        options = ", ".join(f"{name} {value}" for name, value in {**index_options, **search_options}.items())
        how = f"{PER_IDENTITY} images per identity" if features == "clustered" else "Gaussian noise"
        case = f"{self.name(len(self.rows))}, approximate, {how}, {options}"
        comparison = compared("search", case, timings, plain="exact")
        comparison.extra.update({f"recall@{self.k}": recall, "build s": built.median})
        return comparison


def _index(gallery, options):
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())  # it has threads of its own
    return ApproximateIndex(gallery, **options)
