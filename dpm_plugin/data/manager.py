"""torchreid's image data manager with our transforms, camera counts and errors that speak."""

from dpm_plugin import torchreid_host
from dpm_plugin.data import sharing
from dpm_plugin.data.datasets import torchreid_sets
from dpm_plugin.data.loaders import loader_like
from dpm_plugin.data.sampling import build_train_sampler
from dpm_plugin.data.skipping import skipped_images, skipping
from dpm_plugin.data.transforms import build_transforms, unknown
from dpm_plugin.distributed.processes import ALONE
from dpm_plugin.torchreid_host import ImageDataManager
from dpm_plugin.utils.errors import DPMError

CORRUPT = ("error", "skip")
#: What torchreid's readers raise on a data set that is not as they expect.
READER_ERRORS = (AssertionError, AttributeError, IndexError, OSError, RuntimeError)


class DPMImageDataManager(ImageDataManager):
    """``torchreid.data.ImageDataManager`` with a few additions; all of its arguments hold.

    - ``transforms`` also knows ``jitter``, ``pad_crop`` and ``erase_pixel``
      (:func:`dpm_plugin.data.transforms.build_transforms`).
    - A missing data set is an error: nothing is created or downloaded.
    - An unreadable image is an error that names it, in worker processes too; ``corrupt`` can let another one stand
      for a training image.
    - Settings that would train on nothing are an error before training.

    Args:
        root, sources, targets: folder of the data sets; names to train on; names to test on.
        interpolation: ``"bilinear"`` or ``"bicubic"``, of the training resize.
        persistent_workers: keep the ``workers`` processes from epoch to epoch, default False: each epoch starts
            new ones. Either way a run repeats itself, but the two draw different random numbers.
        corrupt: what a training image that cannot be read does: ``"error"`` ends the run (default), ``"skip"`` lets
            another image of its identity take its place, see :mod:`dpm_plugin.data.skipping`. A test image that
            cannot be read is an error always: the result would be another one without it.
        synthetic: a ``SyntheticSpec`` for the data set ``synthetic_occluded``; None is its default one.
        processes: :class:`~dpm_plugin.distributed.processes.Processes` that share the batches out:
            ``batch_size_train`` is that of all together, ``batch_size_test`` that of each. Default: one process.

    Raises:
        DPMError: a data set is unknown, missing, or cannot fill a batch; a batch cannot be shared.
    """

    def __init__(
        self,
        root="",
        sources=None,
        targets=None,
        *positional,
        interpolation="bilinear",
        persistent_workers=False,
        corrupt="error",
        synthetic=None,
        processes=ALONE,
        **torchreid_arguments,
    ):
        sources, targets = _names(sources), _names(targets)
        if not sources:
            raise DPMError("no training data set: name one in data.sources")
        self._check_names(root, sources, targets or sources)
        if torchreid_arguments.get("load_train_targets") and set(sources) & set(targets or sources):
            raise DPMError("data.load_train_targets needs targets that are no sources")
        if corrupt not in CORRUPT:
            raise unknown("choice (data.corrupt)", corrupt, CORRUPT)
        self._synthetic = synthetic
        self._source_cameras = []

        def transforms_of(height, width, **options):
            return build_transforms(height, width, interpolation=interpolation, **options)

        build_sampler = build_train_sampler
        if processes.size > 1:
            build_sampler = sharing.shared_sampler_builder(processes)
            torchreid_arguments["batch_size_train"] = sharing.share_of_batch(
                torchreid_arguments.get("batch_size_train", 32), processes, _together(torchreid_arguments)
            )
        torchreid_host.install_read_image()
        with torchreid_host.manager_builders(
            init_image_dataset=self._build_dataset, build_train_sampler=build_sampler, build_transforms=transforms_of
        ):
            # torchreid's constructor refuses an unknown argument, so nothing is swallowed here.
            super().__init__(root, sources, targets, *positional, **torchreid_arguments)
        if persistent_workers and self.train_loader.num_workers > 0:
            self._keep_workers()
        if corrupt == "skip":
            self.train_loader = skipping(self.train_loader)
            if self.train_loader_t is not None:
                self.train_loader_t = skipping(self.train_loader_t)
        for loader in self._loaders():
            # A spawned worker starts with torchreid's own reader.
            loader.worker_init_fn = install_reader_in_worker
        if processes.size > 1:
            for loaders in self.test_loader.values():
                for side, loader in loaders.items():
                    loaders[side] = sharing.share_test_loader(loader, processes)

    @property
    def num_cameras(self):
        """Rows that a camera embedding needs: the largest camera id in the training set + 1.

        Not ``num_train_cams``, which counts the ids that occur.
        """
        return 1 + max(camid for _, _, camid, _ in self.train_loader.dataset.train)

    @property
    def skipped(self):
        """Counter of the unreadable training images that others stood for; None where ``corrupt`` is "error"."""
        return skipped_images((self.train_loader, self.train_loader_t))

    def camera_offset(self, name):
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

    @staticmethod
    def _check_names(root, sources, targets):
        classes = torchreid_host.image_dataset_classes()
        for name in [*sources, *targets]:
            if name not in classes:
                raise unknown("data set (data.sources, data.targets)", name, classes)
            torchreid_sets.check_present(name, classes[name], root)

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

    def _keep_workers(self):
        def kept(loader):
            return loader_like(loader, persistent_workers=True)

        self.train_loader = kept(self.train_loader)
        if self.train_loader_t is not None:
            self.train_loader_t = kept(self.train_loader_t)
        for name, loaders in self.test_loader.items():
            self.test_loader[name] = {side: kept(loader) for side, loader in loaders.items()}

    def _loaders(self):
        yield self.train_loader
        if self.train_loader_t is not None:
            yield self.train_loader_t
        for loaders in self.test_loader.values():
            yield from loaders.values()


def _names(names):
    """A list of data set names from a name, a sequence of them, or None."""
    if names is None or isinstance(names, str):
        return names and [names]
    return list(names)


def _together(torchreid_arguments):
    """Images that no two processes may share out between them: those of an identity, if batches are made so."""
    samplers = {torchreid_arguments.get(name) for name in ("train_sampler", "train_sampler_t")}
    return torchreid_arguments.get("num_instances", 4) if "RandomIdentitySampler" in samplers else 1


def install_reader_in_worker(worker_id):
    """``worker_init_fn`` of every loader; torch itself gives each worker its own random state."""
    torchreid_host.install_read_image()
