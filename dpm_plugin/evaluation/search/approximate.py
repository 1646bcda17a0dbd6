"""Approximate top-k: candidates by faiss from a compressed gallery, ranked by their exact masked distance."""

import numpy as np
import torch
from torch import Tensor

from dpm_plugin.evaluation.search.blocks import MaskedBlocks
from dpm_plugin.evaluation.search.gallery import AnyGallery, Gallery
from dpm_plugin.utils.errors import DPMError

CENTROIDS = 16  # of a part of a row: 4 bits
TRAINING_ROWS = 16_384
ROWS_PER_LIST = 64  # of the training rows, for the centres of lists
ADDED_ROWS = 8192  # in one step


class ApproximateIndex:
    """Finds candidates by the numerator of the masked cosine from compressed rows, and ranks these exactly.

    The numerator (q̂ * m) ĝᵀ orders the images nearly as the cosine does: its denominator differs little from image
    to image. The rows are product-quantised to 4 bits for every ``part`` channels (faiss' "fast scan"): by default
    an eighth of a byte a channel, 96 MB for 1,000,000 x 768. All are compared, so the recall depends little on how
    the features are spread. With ``lists`` only the images near the query are; that pays where identities form
    tight clusters, and loses recall where they do not.

    Args:
        gallery: :class:`Gallery`, or what that takes; kept for the exact distances of the candidates.
        part: channels that share one 4-bit code, a divisor of D. Default: the largest up to 4; with 2, twice the
            memory and time of a scan, and a clearly better recall.
        lists: clusters that the gallery is split into. Default: 0, not split. A few times sqrt(G) is usual.

    Raises:
        DPMError: faiss is not installed, the gallery is too small, or an option that does not fit it.
    """

    def __init__(self, gallery: AnyGallery, *, part: int | None = None, lists: int = 0) -> None:
        try:
            import faiss
        except ImportError as error:
            raise DPMError("approximate search needs faiss; install it with: pip install faiss-cpu") from error
        self.gallery, self.lists = Gallery.of(gallery), lists
        dim, count = self.gallery.dim, len(self.gallery)
        part = part or max(size for size in (1, 2, 3, 4) if dim % size == 0)
        if part < 1 or dim % part:
            raise DPMError(f"part is {part}, but must divide the {dim} channels of the gallery")
        if not 0 <= lists <= count or count < CENTROIDS:
            needs = f"it needs {CENTROIDS} images or more, and at most a list for each"
            raise DPMError(f"an index with {lists} lists of {count} images: {needs}; search a small gallery with topk")
        kind = f"IVF{lists}," if lists else ""
        self.index = faiss.index_factory(dim, f"{kind}PQ{dim // part}x4fs", faiss.METRIC_INNER_PRODUCT)
        for part_of_index in (self.index.pq, self.index) if lists else (self.index.pq,):
            part_of_index.cp.min_points_per_centroid = 1  # no warning from faiss for a small gallery
        trained = min(max(TRAINING_ROWS, ROWS_PER_LIST * lists), count)
        rows = np.sort(np.random.default_rng(0).choice(count, trained, replace=False))
        self.index.train(self.gallery.unit_rows(torch.from_numpy(rows), "cpu").numpy())
        for _, unit in self.gallery.chunks(ADDED_ROWS, "cpu"):
            self.index.add(unit.numpy())

    @torch.no_grad()
    def search(
        self,
        query: Tensor,
        query_mask: Tensor | None,
        k: int = 50,
        *,
        candidates: int | None = None,
        probes: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k nearest images among the candidates of each query.

        Args:
            query, query_mask, k: as in :func:`topk`.
            candidates: images whose exact distance is computed, k to G. Default: 10 k, or G.
            probes: of the ``lists``, those nearest to the query that are scanned. Default: an eighth of them.

        Returns:
            distances (Q, k) and indices (Q, k) as :func:`topk` gives them; infinity and -1 where the probed
            lists held fewer than k images.

        Raises:
            DPMError: as :func:`topk`, or options out of their range.
        """
        count = len(self.gallery)
        candidates = min(10 * k, count) if candidates is None else candidates
        if not 1 <= k <= candidates <= count:
            expected = f"1 <= k <= candidates <= {count}, the images of the gallery"
            raise DPMError(f"k is {k} and candidates is {candidates}; expected {expected}")
        if probes is not None and not 1 <= probes <= self.lists:
            raise DPMError(f"probes is {probes}, but must be between 1 and the {self.lists} lists of the index")
        if self.lists:
            self.index.nprobe = probes or max(1, self.lists // 8)
        blocks = MaskedBlocks(query, self.gallery, query_mask)
        _, found = self.index.search(blocks.queries.seen.cpu().numpy(), candidates)  # (Q, c), -1 where there are fewer
        distances = torch.full((len(query), k), float("inf"), device=query.device)
        indices = torch.full((len(query), k), -1, device=query.device)
        for row, numbers in enumerate(torch.from_numpy(found)):
            numbers = numbers[numbers >= 0].sort().values  # in gallery order, as ties are to come
            nearest, order = blocks(numbers)(slice(row, row + 1))[0].sort(stable=True)  # (c,)
            count = min(k, len(numbers))
            distances[row, :count] = nearest[:count]
            indices[row, :count] = numbers.to(query.device)[order[:count]]
        return distances, indices
