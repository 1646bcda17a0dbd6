"""Everything that is shown of one query, as numbers."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from dpm_plugin.apps.visualize.attribution import DRIVERS, gradient_times_input, occlusion_sensitivity
from dpm_plugin.apps.visualize.heat_maps import PatchGrid, patch_grid
from dpm_plugin.apps.visualize.ranking import Ranking, rank_gallery
from dpm_plugin.evaluation.protocol import SPACES, evaluate
from dpm_plugin.inference.run_extractor import Extractor, evenly_spaced
from dpm_plugin.method.retrieval import query_mask_distance
from dpm_plugin.method.vit import EncoderOutput
from dpm_plugin.utils.errors import DPMError

MEAN_OVER = 200  # queries whose mean patch maps are the reference of gradient x input


@dataclass(frozen=True)
class Channel:
    """One channel of a query's mask: number, value, mean value over all queries, and what drives it.

    ``drivers``: (H, W) float32 on the model's image, in units of the channel's logit, see
    :mod:`dpm_plugin.apps.visualize.attribution`; NaN where no patch sees the pixel.
    """

    number: int
    value: float
    mean: float
    drivers: np.ndarray


@dataclass(frozen=True)
class QueryView:
    """What a run sees in one query.

    Attributes:
        position: in the query set, from 0.
        path, pid, camid: of the query image.
        occlusion: {"hidden": share from 0 to 1, "occluder": kind}, or None where the data set does not know.
        channels: the mask's channels of the highest values, highest first; empty without a mask.
        attention: (N, H, W) class-token attention of the last block's heads (Eq. 5), NaN as in ``Channel``.
        patches: number of patches P; an even attention is 1 / P everywhere.
        off, on: without and with the query's mask; ``on`` is None without a mask.
    """

    position: int
    path: str
    pid: int
    camid: int
    occlusion: dict | None
    channels: tuple[Channel, ...]
    attention: np.ndarray
    patches: int
    off: Ranking
    on: Ranking | None


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
        self.dataset = run.loader("query").dataset
        self.query, self.gallery = (run.features(run.loader(side), side) for side in ("query", "gallery"))
        self.result = evaluate(
            self.query,
            self.gallery,
            ranks=run.config.test.ranks,
            feature=run.feature,
            mask=run.mask,
            use_metric_cuhk03=run.config.cuhk03.use_metric_cuhk03,
        )

    def view(self, position: int) -> QueryView:
        """What is seen in the query at ``position``, 0 .. Q - 1."""
        item = self.dataset[position]
        data = {"img": item["img"][None], "camid": torch.tensor([item["camid"]])}
        grid = patch_grid(self.run.model, tuple(item["img"].shape[-2:]))
        encoded = self._encode(data, need_heads=True)
        attention = encoded.head_logits[0].float().softmax(dim=-1).cpu()  # (N, P), Eq. 5
        path, mask = self.query.paths[position], self.query.mask
        return QueryView(
            position,
            path,
            int(self.query.pids[position]),
            int(self.query.camids[position]),
            occlusion=getattr(self.dataset, "visibility", {}).get(path),
            channels=() if mask is None else self._channels(position, data, encoded, grid),
            attention=grid.mean(attention).numpy(),
            patches=grid.patches,
            off=self._ranking(position, None),
            on=None if mask is None else self._ranking(position, mask[position : position + 1]),
        )

    def _encode(self, data: dict, need_heads: bool = False) -> EncoderOutput:
        return self.run.encode(data, "query", blocks=self.run.model.mask_blocks, need_heads=need_heads)

    def _ranking(self, position: int, mask: torch.Tensor | None) -> Ranking:
        query, gallery = (getattr(side, SPACES[self.run.feature]) for side in (self.query, self.gallery))
        distance = query_mask_distance(query[position : position + 1], gallery, mask)[0].numpy()  # (G,)
        pid, camid = self.query.pids[position], self.query.camids[position]
        return rank_gallery(distance, pid, camid, np.asarray(self.gallery.pids), np.asarray(self.gallery.camids))

    def _channels(self, position: int, data: dict, encoded: EncoderOutput, grid: PatchGrid) -> tuple[Channel, ...]:
        mask, mean = self.query.mask[position], self.query.mask.mean(dim=0)  # (D,)
        numbers = mask.argsort(descending=True, stable=True)[: self.num_channels]  # (K,)
        generator = self.run.model.mask_generator
        if self.drivers == "gradient":
            values = gradient_times_input(generator, encoded.patch_maps, self._mean_maps, numbers)
        else:

            def logits_of(images: torch.Tensor) -> torch.Tensor:
                batch = {"img": images, "camid": data["camid"].expand(len(images))}
                return generator.logits([patch_map.float() for patch_map in self._encode(batch).patch_maps])

            values = occlusion_sensitivity(logits_of, data["img"][0], grid, numbers)
        drivers = grid.mean(values.cpu()).numpy()  # (K, H, W)
        return tuple(
            Channel(number, float(mask[number]), float(mean[number]), row)
            for number, row in zip(numbers.tolist(), drivers)
        )

    @cached_property
    def _mean_maps(self) -> torch.Tensor:
        """The mean patch maps of up to MEAN_OVER queries, (M, C, h, w)."""
        positions = evenly_spaced(len(self.dataset), MEAN_OVER)
        batches = (self._encode(data).patch_maps for data in self.run.loader("query", positions))
        sums = (torch.stack([one.float().sum(dim=0) for one in maps]) for maps in batches)
        return sum(sums, torch.zeros(())) / len(positions)
