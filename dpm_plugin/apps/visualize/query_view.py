"""Everything that is shown of one query, as numbers."""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from dpm_plugin.apps.visualize.attribution import DRIVERS, gradient_times_input, occlusion_sensitivity
from dpm_plugin.apps.visualize.heat_maps import PatchGrid, patch_grid
from dpm_plugin.apps.visualize.ranking import Ranking, rank_gallery
from dpm_plugin.evaluation.protocol import SPACES, evaluate
from dpm_plugin.inference.run_extractor import Extractor, evenly_spaced
from dpm_plugin.method.part_features import part_weights
from dpm_plugin.method.retrieval import query_mask_distance
from dpm_plugin.method.vit import EncoderOutput
from dpm_plugin.utils.errors import DPMError

MEAN_OVER = 200  # queries whose mean patch maps are the reference of gradient x input


class Channel(NamedTuple):
    """One channel of a query's mask."""

    number: int  # from 0; with parts, within its part
    value: float
    mean: float  # of its values over all queries
    drivers: np.ndarray  # (H, W) float32 on the model's image, in units of its logit; NaN where no patch sees the pixel
    part: int | None = None  # from 1 at the top; None for the class token


class QueryView(NamedTuple):
    """What a run sees in one query."""

    position: int  # in the query set, from 0
    path: str
    pid: int
    camid: int
    occlusion: dict | None  # {"hidden": share from 0 to 1, "occluder": kind}; None where the data set does not know
    channels: tuple[Channel, ...]  # of the highest values in the mask, highest first; none without a mask
    attention: np.ndarray  # (N, H, W) class-token attention of the last block's heads (Eq. 5), NaN as in Channel
    patches: int  # P; an even attention is 1 / P everywhere
    off: Ranking  # without the query's mask
    on: Ranking | None  # with it; None without a mask
    parts: tuple[float, ...] = ()  # how much each counts by the mask, from the top; 1 is its mean in the gallery


class Viewer:
    """Extracts a run's features once and then views its queries one by one.

    Args:
        run: finished, with its test data.
        channels: mask channels a query. Default: 6.
        drivers: a key of :data:`~dpm_plugin.apps.visualize.attribution.DRIVERS`. Default: "paint".

    Attributes:
        query, gallery: :class:`~dpm_plugin.evaluation.protocol.Features`.
        result: :class:`~dpm_plugin.evaluation.protocol.Result` of all queries, as the run's own evaluation has it.

    Raises:
        DPMError: an unknown choice, fewer than one channel, or data that cannot be evaluated.
    """

    def __init__(self, run: Extractor, channels: int = 6, drivers: str = "paint") -> None:
        if drivers not in DRIVERS:
            raise DPMError(f"drivers '{drivers}' is unknown; choose {' or '.join(DRIVERS)}")
        if channels < 1:
            raise DPMError(f"the number of mask channels must be at least 1, got {channels}")
        self.run, self.num_channels, self.drivers = run, channels, drivers
        self.dataset: Any = run.loader("query").dataset
        self.query, self.gallery = (run.features(run.loader(side), side) for side in ("query", "gallery"))
        test, cuhk03 = run.config.test, run.config.cuhk03.use_metric_cuhk03
        options = dict(ranks=test.ranks, feature=run.feature, mask=run.mask, use_metric_cuhk03=cuhk03)
        self.result = evaluate(self.query, self.gallery, **options)

    def view(self, position: int) -> QueryView:
        """What is seen in the query at ``position``, 0 .. Q - 1."""
        item = self.dataset[position]
        data = {"img": item["img"][None], "camid": torch.tensor([item["camid"]])}
        grid = patch_grid(self.run.model, tuple(item["img"].shape[-2:]))
        encoded = self._encode(data, need_heads=True)
        assert encoded.head_logits is not None  # as asked for
        attention = encoded.head_logits[0].float().softmax(dim=-1).cpu()  # (N, P), Eq. 5
        path, mask = self.query.paths[position], self.query.mask
        return QueryView(
            position,
            path,
            int(self.query.pids[position]),
            int(self.query.camids[position]),
            occlusion=getattr(self.dataset, "visibility", {}).get(path),
            channels=self._channels(position, data, encoded, grid),
            attention=grid.mean(attention).numpy(),
            patches=grid.patches,
            off=self._ranking(position, None),
            on=None if mask is None else self._ranking(position, mask[position : position + 1]),
            parts=self._parts[position],
        )

    def _encode(self, data: dict, need_heads: bool = False) -> EncoderOutput:
        return self.run.encode(data, "query", blocks=self.run.model.mask_blocks, need_heads=need_heads)

    def _ranking(self, position: int, mask: torch.Tensor | None) -> Ranking:
        query, gallery = (getattr(side, SPACES[self.run.feature]) for side in (self.query, self.gallery))
        distance = query_mask_distance(query[position : position + 1], gallery, mask)[0].numpy()  # (G,)
        own = self.query.pids[position], self.query.camids[position]
        return rank_gallery(distance, *own, np.asarray(self.gallery.pids), np.asarray(self.gallery.camids))

    def _channels(self, position: int, data: dict, encoded: EncoderOutput, grid: PatchGrid) -> tuple[Channel, ...]:
        masks, generator = self.query.mask, self.run.model.mask_generator
        if masks is None or generator is None:
            return ()
        mask, mean = masks[position], masks.mean(dim=0)  # (D,)
        numbers = mask.argsort(descending=True, stable=True)[: self.num_channels]  # (K,)

        def logits_of(images: torch.Tensor) -> torch.Tensor:
            batch = {"img": images, "camid": data["camid"].expand(len(images))}
            return generator.logits([patch_map.float() for patch_map in self._encode(batch).patch_maps])

        if self.drivers == "gradient":
            values = gradient_times_input(generator, encoded.patch_maps, self._mean_maps, numbers)
        else:
            values = occlusion_sensitivity(logits_of, data["img"][0], grid, numbers)
        drivers = grid.mean(values.cpu()).numpy()  # (K, H, W)
        own, parts = zip(*map(self._place, numbers.tolist()))
        return tuple(map(Channel, own, mask[numbers].tolist(), mean[numbers].tolist(), drivers, parts))

    def _place(self, number: int) -> tuple[int, int | None]:
        """From a channel of the mask, 0 .. D - 1, to its number and part as in :class:`Channel`."""
        dim, parts = self.run.model.backbone.dim, self.run.model.part_features
        if parts is None or number < dim:
            return number, None
        part, number = divmod(number - dim, parts.part_dim)
        return number, part + 1

    @cached_property
    def _parts(self) -> list[tuple[float, ...]]:
        """How much each part of each query counts; nothing without parts or without masks."""
        masks, usual = (self.run.model.part_masks(side.mask) for side in (self.query, self.gallery))
        if masks is None or usual is None:
            return [()] * len(self.query)
        return list(map(tuple, part_weights(masks, usual).tolist()))

    @cached_property
    def _mean_maps(self) -> torch.Tensor:
        """The mean patch maps of up to MEAN_OVER queries, (M, C, h, w)."""
        positions = evenly_spaced(len(self.dataset), MEAN_OVER)
        batches = (self._encode(data).patch_maps for data in self.run.loader("query", positions))
        sums = (torch.stack([one.float().sum(dim=0) for one in maps]) for maps in batches)
        return sum(sums, torch.zeros(())) / len(positions)
