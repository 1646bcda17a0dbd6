"""Everything that is shown of one query, as numbers; pictures and page draw from these."""

from dataclasses import dataclass

import numpy as np
import torch

from dpm_plugin.apps.visualize.drivers import DRIVERS, gradient_drivers, painted_drivers
from dpm_plugin.apps.visualize.grid import patch_grid
from dpm_plugin.apps.visualize.ranking import Ranking, outcome, rank_gallery
from dpm_plugin.evaluation.protocol import SPACES, evaluate
from dpm_plugin.inference.run_extractor import evenly_spaced
from dpm_plugin.method.retrieval import query_mask_distance
from dpm_plugin.utils.errors import DPMError

MEAN_OVER = 200  # queries whose mean patch maps are the reference of the gradient


@dataclass(frozen=True)
class Channel:
    """One channel of a query's mask: number, value, mean value over all queries, and what drives it.

    ``drivers``: (H, W) float32 on the model's image, in units of the channel's logit; see
    :mod:`dpm_plugin.apps.visualize.drivers`. NaN where no patch sees the pixel.
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
        off, on: Ranking without and with the query's mask; ``on`` is None without a mask.
    """

    position: int
    path: str
    pid: int
    camid: int
    occlusion: dict | None
    channels: tuple
    attention: np.ndarray
    patches: int
    off: Ranking
    on: Ranking | None

    @property
    def outcome(self):
        """What the mask did, see :func:`dpm_plugin.apps.visualize.ranking.outcome`."""
        return outcome(self.off, self.on)


class Viewer:
    """Extracts a run's features once and then views its queries one by one.

    Args:
        run: :class:`~dpm_plugin.inference.run_extractor.Extractor`.
        channels: mask channels a query. Default: 6.
        drivers: "paint" or "gradient". Default: "paint".

    Attributes:
        query, gallery: :class:`~dpm_plugin.evaluation.protocol.Features`.
        result: :class:`~dpm_plugin.evaluation.protocol.Result` of all queries, as the run's own evaluation has it.

    Raises:
        DPMError: an unknown choice, fewer than one channel, or data that cannot be evaluated.
    """

    def __init__(self, run, channels=6, drivers="paint"):
        if drivers not in DRIVERS:
            raise DPMError(f"drivers '{drivers}' is unknown; choose {' or '.join(DRIVERS)}")
        if channels < 1:
            raise DPMError(f"the number of mask channels must be at least 1, got {channels}")
        self.run, self.num_channels, self.drivers = run, channels, drivers
        self.dataset = run.loader("query").dataset
        self.query, self.gallery = (run.features(run.loader(side), side) for side in ("query", "gallery"))
        config = run.config
        self.result = evaluate(
            self.query,
            self.gallery,
            ranks=config.test.ranks,
            feature=run.feature,
            mask=run.mask,
            use_metric_cuhk03=config.cuhk03.use_metric_cuhk03,
        )
        self._mean_maps = None

    def view(self, position):
        """The QueryView of the query at ``position``, 0 .. Q - 1."""
        item = self.dataset[position]
        data = {"img": item["img"][None], "camid": torch.tensor([item["camid"]])}
        grid = patch_grid(self.run.model, data["img"].shape[-2:])
        encoded = self.run.encode(data, "query", blocks=self.run.model.mask_blocks, need_heads=True)
        attention = encoded.head_logits[0].float().softmax(dim=-1).cpu()  # (N, P), Eq. 5
        pid, camid = int(self.query.pids[position]), int(self.query.camids[position])
        path = self.query.paths[position]
        return QueryView(
            position,
            path,
            pid,
            camid,
            occlusion=getattr(self.dataset, "visibility", {}).get(path),
            channels=self._channels(position, data, encoded, grid),
            attention=grid.to_pixels(attention).numpy(),
            patches=len(grid),
            off=self._ranking(position, None),
            on=None if self.query.mask is None else self._ranking(position, self.query.mask),
        )

    def _ranking(self, position, mask):
        rows = slice(position, position + 1)
        space = SPACES[self.run.feature]
        query, gallery = getattr(self.query, space), getattr(self.gallery, space)
        distance = query_mask_distance(query[rows], gallery, None if mask is None else mask[rows])  # (1, G)
        return rank_gallery(
            distance[0].numpy(),
            self.query.pids[position],
            self.query.camids[position],
            self.gallery.pids,
            self.gallery.camids,
        )

    def _channels(self, position, data, encoded, grid):
        if self.query.mask is None:
            return ()
        mask, mean = self.query.mask[position], self.query.mask.mean(dim=0)  # (D,)
        numbers = mask.argsort(descending=True, stable=True)[: self.num_channels]
        drivers = grid.to_pixels(self._drive(data, encoded, grid, numbers).cpu())  # (K, H, W)
        return tuple(
            Channel(number, float(mask[number]), float(mean[number]), rows.numpy())
            for number, rows in zip(numbers.tolist(), drivers)
        )

    def _drive(self, data, encoded, grid, numbers):
        """(K, P) by the chosen method."""
        model = self.run.model
        if self.drivers == "gradient":
            return gradient_drivers(model.mask_generator, encoded.patch_maps, self._means(), numbers)

        def logits_of(images):
            batch = {"img": images, "camid": data["camid"].expand(len(images))}
            maps = self.run.encode(batch, "query", blocks=model.mask_blocks).patch_maps
            with torch.no_grad():
                return model.mask_generator.logits([patch_map.float() for patch_map in maps])

        return painted_drivers(logits_of, data["img"][0], grid, numbers)

    def _means(self):
        """The mean patch maps of up to MEAN_OVER queries: M maps (C, h, w)."""
        if self._mean_maps is None:
            sums, seen = None, 0
            for data in self.run.loader("query", evenly_spaced(len(self.dataset), MEAN_OVER)):
                maps = self.run.encode(data, "query", blocks=self.run.model.mask_blocks).patch_maps
                added = [patch_map.float().sum(dim=0) for patch_map in maps]
                sums = added if sums is None else [total + one for total, one in zip(sums, added)]
                seen += len(data["img"])
            self._mean_maps = [total / seen for total in sums]
        return self._mean_maps
