"""Top-50 of galleries up to a million images: exact, memory-mapped, and approximate where faiss is installed."""

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from dpm_plugin.evaluation.search import ApproximateIndex, Gallery, topk
from dpm_plugin.method.retrieval import query_mask_distance
from experiments.benchmark.features import draw, draw_masks
from experiments.benchmark.report import Comparison, compared
from experiments.benchmark.settings import Settings
from experiments.benchmark.timing import take_turns
from experiments.oracles import plain_retrieval

PAPER, TINY = (100, 768, 50), (20, 32, 5)  # queries, width, k
SIZES, TINY_SIZES = (10_000, 100_000, 1_000_000), (200, 1_000)
PER_IDENTITY = 100  # images, where identities form clusters
# Features -> (options of the index, options of its search) of each case.
APPROXIMATE = {
    "gaussian": [({}, {"candidates": 2000}), ({"part": 2}, {"candidates": 1000})],
    "clustered": [({}, {"candidates": 200}), ({"lists": 1024}, {"candidates": 200, "probes": 128})],
}
TINY_APPROXIMATE = {
    "gaussian": [({}, {"candidates": 50})],
    "clustered": [({"lists": 8}, {"candidates": 20, "probes": 2})],
}


def run(settings: Settings) -> Iterator[Comparison]:
    """The exact search at each size, once memory-mapped, then the approximate one at the largest."""
    sizes = settings.sizes(SIZES, TINY_SIZES)
    case = _Case(settings, sizes[-1], clustered=False)
    for size in sizes:
        yield case.exact(size)
    yield case.memory_mapped(sizes[-2])
    if importlib.util.find_spec("faiss") is None:
        yield Comparison("search", "approximate: not measured, faiss is not installed (pip install faiss-cpu)")
        return
    for features, cases in settings.sizes(APPROXIMATE, TINY_APPROXIMATE).items():
        if features == "clustered":
            del case  # its gallery, before the next one
            case = _Case(settings, sizes[-1], clustered=True)
        for index, search in cases:
            yield case.approximate(index, search)


class _Case:
    """Queries (Q, D), masks (Q, D) and a gallery of unit rows (size, D)."""

    def __init__(self, settings: Settings, size: int, clustered: bool):
        self.settings, self.clustered = settings, clustered
        queries, dim, self.k = settings.sizes(PAPER, TINY)
        identities = size // PER_IDENTITY if clustered else None
        self.query = draw(queries, dim, identities=identities, seed=1, device=settings.device).rows
        self.mask = draw_masks(queries, dim, device=settings.device)
        self.rows = draw(size, dim, identities=identities, device=settings.device).rows
        for part in self.rows.split(10_000):
            part /= part.norm(dim=1, keepdim=True)

    def exact(self, size: int) -> Comparison:
        """Against the two matrix products and a top-k, with room for their results at hand."""
        rows, query, mask = self.rows[:size], self.query, self.mask
        products = [query.new_empty(len(query), size) for _ in range(2)]

        def bare() -> torch.return_types.topk:
            torch.mm(query, rows.T, out=products[0])
            torch.mm(mask, rows.T, out=products[1])
            return products[0].topk(self.k, dim=1)

        gallery = Gallery(rows, unit=True)
        timings = self.settings.take_turns({"bare": bare, "ours": lambda: self._search(gallery)})
        expected, _ = plain_retrieval.nearest(query_mask_distance(query, rows, mask), self.k)
        name = f"{self._name(size)}, exact, against two bare matrix products and a top-k"
        difference = float((timings["ours"].result[0] - expected).abs().max())
        comparison = compared("search", name, timings, plain="bare", difference=difference)
        comparison.extra["ours / bare"] = 1 / comparison.ratio
        comparison.size, comparison.unit = size, "gallery images"
        return comparison

    def memory_mapped(self, size: int) -> Comparison:
        """Against the same gallery in memory."""
        gallery = Gallery(self.rows[:size], unit=True)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gallery.npy"
            gallery.save(path)
            mapped = Gallery.open(path)
            timings = self.settings.take_turns(
                {"in memory": lambda: self._search(gallery), "ours": lambda: self._search(mapped)}
            )
        difference = float((timings["ours"].result[0] - timings["in memory"].result[0]).abs().max())
        name = f"{self._name(size)}, exact, memory-mapped"
        return compared("search", name, timings, plain="in memory", difference=difference)

    def approximate(self, index_options: dict[str, int], search_options: dict[str, int]) -> Comparison:
        """Against the exact search; the recall is of its result."""
        gallery = Gallery(self.rows, unit=True)
        built = take_turns({"build": lambda: _index(gallery, index_options)}, rounds=1, warmup=0)["build"]
        timings = self.settings.take_turns(
            {
                "exact": lambda: self._search(gallery),
                "ours": lambda: built.result.search(self.query, self.mask, self.k, **search_options),
            }
        )
        exact, found = timings["exact"].result[1], timings["ours"].result[1]  # (Q, k) each
        recall = float((exact[:, :, None] == found[:, None, :]).any(dim=2).float().mean())
        options = ", ".join(f"{name} {value}" for name, value in {**index_options, **search_options}.items())
        how = f"{PER_IDENTITY} images per identity" if self.clustered else "Gaussian noise"
        name = f"{self._name(len(self.rows))}, approximate, {how}, {options}"
        extra = {f"recall@{self.k}": recall, "build s": built.median}
        return compared("search", name, timings, plain="exact", extra=extra)

    def _search(self, gallery: Gallery) -> tuple[torch.Tensor, torch.Tensor]:
        return topk(self.query, gallery, self.mask, self.k)

    def _name(self, size: int) -> str:
        return f"top-{self.k} of {size:,} x {self.query.shape[1]}, {len(self.query)} queries"


def _index(gallery: Gallery, options: dict[str, int]) -> ApproximateIndex:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())  # it has threads of its own
    return ApproximateIndex(gallery, **options)
