"""A finished run that reads test images again, exactly as its own evaluation did."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from dpm_plugin.build import build_datamanager
from dpm_plugin.config import evaluation_kwargs
from dpm_plugin.engine.testing import EvaluationOptions
from dpm_plugin.evaluation.extract import Features, camera_choice, camera_key, extract_features, trained_cameras
from dpm_plugin.inference.open_run import open_run
from dpm_plugin.method.vit import EncoderOutput
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.runtime import autocast


class Extractor:
    """The trained model of a run with its test data, transforms, cameras and number format.

    Args:
        folder, root, device: see :func:`~dpm_plugin.inference.open_run.open_run`.
        dataset: name of one of the run's targets. Default: the first.
        checkpoint: "last", "best" or a path. Default: "last".

    Attributes:
        model, config, epoch: see :class:`dpm_plugin.inference.open_run.Trained`.
        feature, mask: the run's headline row, see :class:`~dpm_plugin.engine.testing.EvaluationOptions`.

    Raises:
        DPMError: no finished run of a plugin model, no data, or another data set than its targets.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        root: str | Path | None = None,
        device: str | torch.device = "cpu",
        dataset: str | None = None,
        checkpoint: str | Path = "last",
    ) -> None:
        self.device = torch.device(device)
        trained = open_run(folder, self.device, root, checkpoint)
        self.model, self.config, self.epoch = trained.model, trained.config, trained.epoch
        targets = list(self.config.data.targets) or list(self.config.data.sources)
        if dataset is not None and dataset not in targets:
            raise DPMError(f"'{folder}' was not evaluated on '{dataset}', but on {', '.join(targets)}")
        self.dataset = dataset or targets[0]
        # A checkpoint that does not say its cameras is of 0.1.0.
        self.datamanager = build_datamanager(self.config, dense_cameras=False)
        options = EvaluationOptions(**evaluation_kwargs(self.config))
        self.feature, self.mask, self._cameras = options.feature, options.mask, options.cameras
        of_data = trained_cameras(self.datamanager) if self.config.loss.name == "dpm" else {}
        self._trained_cameras = of_data if trained.cameras is None else trained.cameras

    def loader(self, side: str, positions: Iterable[int] | None = None) -> DataLoader:
        """Batches of ``side``, "query" or "gallery": all images or those at ``positions``."""
        whole = self.datamanager.test_loader[self.dataset][side]
        part = None if positions is None else Subset(whole.dataset, list(positions))
        return whole if part is None else DataLoader(part, batch_size=self.config.test.batch_size)

    def cameras(self, side: str) -> Callable[[Tensor], Tensor | None]:
        """The function from camera ids of test images to rows of the camera embedding."""
        key = camera_key(self.datamanager, self.dataset)
        return camera_choice(self._cameras, side, self._trained_cameras, key)

    def features(self, loader: DataLoader, side: str) -> Features:
        """Features of the images of ``loader``, taken as ``side``."""
        name, amp = f"{side} set of '{self.dataset}'", self.config.train.amp
        return extract_features(self.model, loader, self.cameras(side), device=self.device, amp=amp, name=name)

    def encode(
        self, data: Mapping[str, Tensor], side: str, *, blocks: Iterable[int] = (), need_heads: bool = False
    ) -> EncoderOutput:
        """What the encoder gives for one batch of ``loader``; options: see :class:`~dpm_plugin.method.vit.ViT`."""
        camids = self.cameras(side)(data["camid"].to(self.device))
        with torch.no_grad(), autocast(self.device, self.config.train.amp):
            return self.model.backbone(data["img"].to(self.device), camids, blocks=blocks, need_heads=need_heads)


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """``min(wanted, count)`` of the positions below ``count``, evenly spaced from 0 on; DPMError for less than one."""
    if wanted < 1:
        raise DPMError(f"the number of images must be at least 1, got {wanted}")
    wanted = min(wanted, count)
    return [number * count // wanted for number in range(wanted)]
