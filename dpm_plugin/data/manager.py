"""torchreid's image data manager with our transforms, camera counts and one-line errors."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch.utils.data import DataLoader

from dpm_plugin import torchreid_host
from dpm_plugin.data import sharing
from dpm_plugin.data.datasets import torchreid_sets
from dpm_plugin.data.own import OwnDataset, OwnOptions, People, camera_key, is_path, read_people
from dpm_plugin.data.sampling import build_train_sampler
from dpm_plugin.data.skipping import SkippingDataset
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.data.transforms import build_transforms
from dpm_plugin.distributed.processes import ALONE, Processes
from dpm_plugin.torchreid_host import ImageDataManager
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import unknown

CORRUPT = ("error", "skip")
#: From the camera ids of a data set to rows of the camera embedding: the row of each, or what is added to all.
CameraRows: TypeAlias = Mapping[int, int] | int
#: What torchreid's readers raise on a data set that is not as they expect.
READER_ERRORS = (AssertionError, AttributeError, IndexError, OSError, RuntimeError)


class DPMImageDataManager(ImageDataManager):
    """``torchreid.data.ImageDataManager`` with a few additions; all of its arguments hold.

    Errors are a missing data set (nothing is created or downloaded), an unreadable image, which is named, in worker
    processes too, and settings that would train on nothing.

    Args:
        root, sources, targets: folder of the data sets; names to train on; names to test on. A name may be the path
            of a folder or table of your own people (:mod:`dpm_plugin.data.own`).
        transforms: torchreid's and ours (:func:`dpm_plugin.data.transforms.build_transforms`).
        interpolation: ``"bilinear"`` or ``"bicubic"``, of the training resize.
        persistent_workers: keep the ``workers`` processes from epoch to epoch, which draws other random numbers.
        corrupt: ``"error"`` (default), or ``"skip"``: a training image that cannot be read is replaced by another of
            its identity (:mod:`dpm_plugin.data.skipping`); a test image never, as results would change.
        synthetic: what the data set ``synthetic_occluded`` draws; None is its default.
        own: how your own people are read and split; None is its default.
        dense_cameras: number the training cameras of all sources from 0 without gaps. False, as 0.1.0 did: torchreid's
            numbers, with which cameras of two sources can share a number. Default: True.
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
        own: OwnOptions | None = None,
        dense_cameras: bool = True,
        processes: Processes = ALONE,
        **torchreid_arguments,
    ) -> None:
        sources, targets = ([names] if isinstance(names, str) else list(names or ()) for names in (sources, targets))
        if not sources:
            raise DPMError("no training data set: name one in data.sources")
        targets = targets or sources
        classes = torchreid_host.image_dataset_classes()
        #: Name -> your own people, of the sources and targets that are paths.
        self.own: dict[str, People] = {}
        for name in dict.fromkeys([*sources, *targets]):
            if is_path(name, root):
                self._read_own(name, root, own)
                continue
            if name not in classes:
                raise unknown("data set (data.sources, data.targets)", name, classes)
            torchreid_sets.check_present(name, classes[name], root)
        bare = [name for name in sources if name in self.own and not self.own[name].has_cameras]
        if bare:
            print(f"=> Without cameras in '{bare[0]}' the model has no camera embedding")
        if torchreid_arguments.get("load_train_targets") and set(sources) & set(targets):
            raise DPMError("data.load_train_targets needs targets that are no sources")
        if corrupt not in CORRUPT:
            raise unknown("choice (data.corrupt)", corrupt, CORRUPT)
        self._synthetic = synthetic
        self.dense_cameras = dense_cameras
        self._camera_rows: dict[str, CameraRows] = {}
        self._num_dense = 0  # cameras of the sources read so far
        self._shifted: set[int] = set()  # the same in torchreid's numbers
        self._next_offset = 0
        #: Whether ``dense_cameras`` changes no camera's number here.
        self.same_without_dense = True

        if processes.size > 1:
            arguments = torchreid_arguments
            samplers = arguments.get("train_sampler"), arguments.get("train_sampler_t")
            together = arguments.get("num_instances", 4) if "RandomIdentitySampler" in samplers else 1
            size = arguments.get("batch_size_train", 32)
            arguments["batch_size_train"] = sharing.share_of_batch(size, processes, together)
        torchreid_host.install_read_image()
        with torchreid_host.manager_builders(
            init_image_dataset=self._build_dataset,
            build_train_sampler=functools.partial(build_train_sampler, processes=processes),
            build_transforms=functools.partial(build_transforms, interpolation=interpolation),
        ):
            # torchreid's constructor refuses an unknown argument, so nothing is swallowed here.
            super().__init__(root, sources, targets, *positional, **torchreid_arguments)
        self.train_loader: Any = _rebuilt(self.train_loader, persistent_workers, corrupt)
        self.train_loader_t: Any = self.train_loader_t and _rebuilt(self.train_loader_t, persistent_workers, corrupt)
        for loaders in self.test_loader.values():
            for side, loader in loaders.items():
                batches = sharing.EveryNthBatch(len(loader.dataset), loader.batch_size, processes)
                loaders[side] = _rebuilt(loader, persistent_workers, batches=batches)

    @property
    def num_cameras(self) -> int:
        """Rows that a camera embedding needs: the largest number of a training camera + 1.

        0 where a source has no cameras: a model of it has no camera embedding.
        """
        if any(name in self.own and not self.own[name].has_cameras for name in self.sources):
            return 0
        return 1 + max(camid for _, _, camid, _ in self.train_loader.dataset.train)

    @property
    def skipped(self) -> Counter[str] | None:
        """How often each unreadable training image was replaced; None where ``corrupt`` is "error"."""
        datasets = [loader.dataset for loader in (self.train_loader, self.train_loader_t) if loader is not None]
        counts = [dataset.skipped for dataset in datasets if isinstance(dataset, SkippingDataset)]
        return sum(counts, Counter()) if counts else None

    def camera_rows(self, name: str) -> CameraRows | None:
        """The rows of the camera embedding for the cameras of training source ``name``, of its test images too.

        None for a data set that is no source: its camera ids say nothing about training cameras.
        """
        return self._camera_rows.get(name)

    def camera_key(self, name: str) -> str:
        """What training remembers the cameras of data set ``name`` by: its name, or for a path what is there."""
        return camera_key(self.own[name]) if name in self.own else name

    def _read_own(self, name, root, options):
        people = read_people(name, root, options)
        for note in people.notes:
            print(f"=> '{name}': {note}")
        people.check()
        cameras = f"{len(people.cameras):,}" if people.has_cameras else "no"
        print(f"=> '{name}': {len(people.persons):,} people, {cameras} cameras")
        self.own[name] = people

    def _build_dataset(self, name, *, root, **options):
        if name in self.own:
            dataset = OwnDataset(self.own[name], **options)
            if options["mode"] == "train" and name in self.sources:
                self._number_cameras(name, dataset)
            return dataset
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
            self._number_cameras(name, dataset)
        return dataset

    def _number_cameras(self, name, dataset):
        if not getattr(dataset, "has_cameras", True):
            self._camera_rows.setdefault(name, {})
            return
        offset = self._next_offset
        self._shifted |= {offset + camid for _, _, camid, _ in dataset.train}
        # As torchreid's Dataset.__add__: the first set's own count, then that of the growing sum.
        self._next_offset = len(self._shifted) if offset else dataset.num_train_cams
        camera_of = getattr(dataset, "camera_of", lambda camid: camid)
        row = {camera: row for row, camera in enumerate(sorted({camera_of(entry[2]) for entry in dataset.train}))}
        ids = sorted({entry[2] for part in (dataset.train, dataset.query, dataset.gallery) for entry in part})
        rows = {camid: self._num_dense + row[camera_of(camid)] for camid in ids if camera_of(camid) in row}
        self._num_dense += len(row)
        self.same_without_dense &= rows == {camid: offset + camid for camid in ids}
        if not self.dense_cameras:
            self._camera_rows.setdefault(name, offset)
            return
        self._camera_rows.setdefault(name, rows)
        # torchreid adds the number of cameras in the sources before.
        dataset.train = [(path, pid, row[camera_of(camid)], dset) for path, pid, camid, dset in dataset.train]
        dataset.data, dataset.num_train_cams = dataset.train, len(row)


def _rebuilt(loader, persistent_workers, corrupt="error", batches=None):
    """torchreid's ``loader`` with what its data manager has no argument for; ``batches``: which images it reads."""
    dataset = SkippingDataset(loader.dataset, loader.num_workers) if corrupt == "skip" else loader.dataset
    kept = ["num_workers", "collate_fn", "pin_memory", "prefetch_factor"]
    if batches is None:
        kept += ["batch_size", "sampler", "drop_last"]
    return DataLoader(
        dataset,
        batch_sampler=batches,
        worker_init_fn=_install_reader,
        persistent_workers=persistent_workers and loader.num_workers > 0,
        **{name: getattr(loader, name) for name in kept},
    )


def _install_reader(worker_id):
    """A spawned worker starts with torchreid's own reader of images. (torch gives it its own random state.)"""
    torchreid_host.install_read_image()
