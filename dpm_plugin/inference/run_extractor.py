"""A finished run that reads test images again, exactly as its own evaluation did."""

from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from dpm_plugin.build import build_datamanager
from dpm_plugin.config import evaluation_kwargs
from dpm_plugin.engine.testing import EvaluationMixin, check_cameras
from dpm_plugin.inference.open_run import open_run
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.runtime import autocast

SIDES = ("query", "gallery")


class Extractor(EvaluationMixin):
    """The trained model of a run with its test data, transforms, cameras and number format.

    Args:
        folder: the run's ``data.save_dir``.
        root: data root; None keeps the run's.
        device: torch device or its name. Default: "cpu".
        dataset: name of one of the run's targets. Default: the first.

    Attributes:
        model, config, epoch: see :class:`dpm_plugin.inference.open_run.Trained`.
        datamanager: the run's ``DPMImageDataManager``.
        dataset: name of the data set.

    Raises:
        DPMError: the folder is no finished run of a plugin model, its data is missing, or the data set is
            none of its targets.
    """

    def __init__(self, folder, *, root=None, device="cpu", dataset=None):
        self.folder = Path(folder)
        self.device = torch.device(device)
        self.model, self.config, self.epoch = open_run(folder, self.device, root)
        targets = list(self.config.data.targets) or list(self.config.data.sources)
        if dataset is not None and dataset not in targets:
            raise DPMError(f"'{folder}' was not evaluated on '{dataset}', but on {', '.join(targets)}")
        self.dataset = dataset or targets[0]
        self.datamanager = build_datamanager(self.config)
        settings = evaluation_kwargs(self.config)
        self.feature, self.mask = settings["feature"], settings["mask"]
        self.cameras = check_cameras(settings["cameras"])
        self.amp = self.config.train.amp

    @property
    def _device(self):
        return self.device

    def loader(self, side, positions=None):
        """Batches of ``side``, "query" or "gallery": all images or those at ``positions``."""
        loader = self.datamanager.test_loader[self.dataset][side]
        if positions is None:
            return loader
        return DataLoader(Subset(loader.dataset, list(positions)), batch_size=self.config.test.batch_size)

    def features(self, loader, side):
        """:class:`~dpm_plugin.evaluation.protocol.Features` of the images of ``loader``, taken as ``side``."""
        return self._extract(loader, self.dataset, SIDES.index(side), side)

    def encode(self, data, side, **options):
        """The encoder's :class:`~dpm_plugin.method.vit.EncoderOutput` for one batch of ``loader``.

        Args:
            options: ``blocks`` and ``need_heads`` of :class:`~dpm_plugin.method.vit.ViT`.
        """
        camids = self._camera_indices(data["camid"], self.dataset, SIDES.index(side))
        with torch.no_grad(), autocast(self.device, self.amp):
            return self.model.backbone(
                data["img"].to(self.device), None if camids is None else camids.to(self.device), **options
            )


def evenly_spaced(count, wanted):
    """``min(wanted, count)`` of the positions below ``count``, evenly spaced from 0 on.

    Raises:
        DPMError: ``wanted`` is below 1.
    """
    if wanted < 1:
        raise DPMError(f"the number of images must be at least 1, got {wanted}")
    wanted = min(wanted, count)
    return [number * count // wanted for number in range(wanted)]
