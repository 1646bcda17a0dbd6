"""torchreid's image data manager with our transforms, camera counts and one-line errors."""

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import DataLoader

from dpm_plugin import torchreid_host
from dpm_plugin.data import sharing
from dpm_plugin.data.datasets import torchreid_sets
from dpm_plugin.data.sampling import build_train_sampler
from dpm_plugin.data.skipping import SkippingDataset, skipped_images
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.data.transforms import build_transforms
from dpm_plugin.distributed.processes import ALONE, Processes
from dpm_plugin.torchreid_host import ImageDataManager
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import unknown

CORRUPT = ("error", "skip")
#: What torchreid's readers raise on a data set that is not as they expect.
READER_ERRORS = (AssertionError, AttributeError, IndexError, OSError, RuntimeError)


class DPMImageDataManager(ImageDataManager):
    """``torchreid.data.ImageDataManager`` with a few additions; all of its arguments hold.

    A missing data set is an error: nothing is created or downloaded. So are an unreadable image, which the
    error names, in worker processes too, and settings that would train on nothing.

    Args:
        root, sources, targets: folder of the data sets; names to train on; names to test on.
        transforms: torchreid's and ours (:func:`dpm_plugin.data.transforms.build_transforms`).
        interpolation: ``"bilinear"`` or ``"bicubic"``, of the training resize.
        persistent_workers: keep the ``workers`` processes from epoch to epoch, default False: each epoch starts
            new ones. Either way a run repeats itself, but the two draw different random numbers.
        corrupt: what a training image that cannot be read does: ``"error"`` ends the run (default), ``"skip"``
            replaces it by another of its identity, see :mod:`dpm_plugin.data.skipping`. A test image that
            cannot be read is an error always: the result would be another one without it.
        synthetic: what the data set ``synthetic_occluded`` draws; None is its default.
        processes: share the batches out: ``batch_size_train`` is that of all together, ``batch_size_test`` that
            of each. Default: one process.

    Raises:
        DPMError: a data set is unknown, missing, or cannot fill a batch; a batch cannot be shared.
    """

    def __init__(
        self,
        root: str | Path = "",
        sources: str | Sequence[str] | None = None,
        targets: str | Sequence[str] | None = None,
        *positional,
        interpolation: str = "bilinear",
        persistent_workers: bool = False,
        corrupt: str = "error",
        synthetic: SyntheticSpec | None = None,
        processes: Processes = ALONE,
        **torchreid_arguments,
    ) -> None:
        sources, targets = ([names] if isinstance(names, str) else list(names or ()) for names in (sources, targets))
        if not sources:
            raise DPMError("no training data set: name one in data.sources")
        targets = targets or sources
        classes = torchreid_host.image_dataset_classes()
        for name in [*sources, *targets]:
            if name not in classes:
                raise unknown("data set (data.sources, data.targets)", name, classes)
            torchreid_sets.check_present(name, classes[name], root)
        if torchreid_arguments.get("load_train_targets") and set(sources) & set(targets):
            raise DPMError("data.load_train_targets needs targets that are no sources")
        if corrupt not in CORRUPT:
            raise unknown("choice (data.corrupt)", corrupt, CORRUPT)
        self._synthetic = synthetic
        self._source_cameras: list[tuple[str, set[int], int]] = []

        transforms_of = functools.partial(build_transforms, interpolation=interpolation)
        build_sampler = functools.partial(build_train_sampler, processes=processes)
        if processes.size > 1:
            torchreid_arguments["batch_size_train"] = sharing.share_of_batch(
                torchreid_arguments.get("batch_size_train", 32), processes, _together(torchreid_arguments)
            )
        torchreid_host.install_read_image()
        with torchreid_host.manager_builders(
            init_image_dataset=self._build_dataset, build_train_sampler=build_sampler, build_transforms=transforms_of
        ):
            # torchreid's constructor refuses an unknown argument, so nothing is swallowed here.
            super().__init__(root, sources, targets, *positional, **torchreid_arguments)
        self.train_loader = _training_loader(self.train_loader, corrupt, persistent_workers)
        if self.train_loader_t is not None:
            self.train_loader_t = _training_loader(self.train_loader_t, corrupt, persistent_workers)
        for loaders in self.test_loader.values():
            for side, loader in loaders.items():
                loaders[side] = _test_loader(loader, processes, persistent_workers)

    @property
    def num_cameras(self) -> int:
        """Rows that a camera embedding needs: the largest camera id in the training set + 1.

        Not ``num_train_cams``, which counts the ids that occur.
        """
        return 1 + max(camid for _, _, camid, _ in self.train_loader.dataset.train)

    @property
    def skipped(self) -> Counter[str] | None:
        """How often each unreadable training image was replaced; None where ``corrupt`` is "error"."""
        loaders = (self.train_loader, self.train_loader_t)
        return skipped_images(loader for loader in loaders if loader is not None)

    def camera_offset(self, name: str) -> int | None:
        """What training adds to the camera ids of source ``name``; test images come without it.

        torchreid shifts the camera ids of every later source. None for a data set that is no training
        source: its camera ids say nothing about training cameras.
        """
        offset, seen = 0, set()
        for source, camids, count in self._source_cameras:
            if source == name:
                return offset
            seen |= {offset + camid for camid in camids}
            # As torchreid's Dataset.__add__: the first set's own count, then that of the growing sum.
            offset = count if offset == 0 else len(seen)
        return None

    def _build_dataset(self, name, *, root, **options):
        cls = torchreid_host.image_dataset_classes()[name]
        if name == "synthetic_occluded" and self._synthetic is not None:
            options["spec"] = self._synthetic
        try:
            dataset = torchreid_host.init_image_dataset(name, root=root, **options)
        except READER_ERRORS as error:
            if isinstance(error, DPMError) or not torchreid_host.is_torchreid_own(cls):
                raise
            raise torchreid_sets.read_error(name, cls, root, error) from error
        if options["mode"] == "train" and name in self.sources:
            camids = {camid for _, _, camid, _ in dataset.train}
            self._source_cameras.append((name, camids, dataset.num_train_cams))
        return dataset


def _together(torchreid_arguments):
    """Images that no two processes may share out between them: those of an identity, if batches are made so."""
    samplers = {torchreid_arguments.get(name) for name in ("train_sampler", "train_sampler_t")}
    return torchreid_arguments.get("num_instances", 4) if "RandomIdentitySampler" in samplers else 1


def _training_loader(loader, corrupt, persistent_workers):
    dataset = SkippingDataset(loader.dataset, loader.num_workers) if corrupt == "skip" else loader.dataset
    batches = dict(batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last)
    return _loader_like(loader, dataset, persistent_workers, **batches)


def _test_loader(loader, processes, persistent_workers):
    """A loader like ``loader``, in order and without dropping; of several processes each reads its own batches."""
    batches = sharing.EveryNthBatch(len(loader.dataset), loader.batch_size, processes)
    return _loader_like(loader, loader.dataset, persistent_workers, batch_sampler=batches)


def _loader_like(loader, dataset, persistent_workers, **batches):
    """torchreid's ``loader`` with what its data manager has no argument for."""
    settings = {name: getattr(loader, name) for name in ("num_workers", "collate_fn", "pin_memory", "prefetch_factor")}
    return DataLoader(
        dataset,
        worker_init_fn=install_reader_in_worker,
        persistent_workers=persistent_workers and loader.num_workers > 0,
        **settings,
        **batches,
    )


def install_reader_in_worker(worker_id: int) -> None:
    """``worker_init_fn`` of every loader: a spawned worker starts with torchreid's own reader of images.

    torch itself gives each worker its own random state.
    """
    torchreid_host.install_read_image()
