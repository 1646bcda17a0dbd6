"""What the plugin's data sets share: sorted reading, labels, counts, sets without training images."""

import warnings
from collections.abc import Callable
from pathlib import Path

from dpm_plugin.data.datasets.folders import FolderStructure, list_images, locate
from dpm_plugin.torchreid_host import ImageDataset
from dpm_plugin.utils.errors import DPMError

Split = list[tuple[str, int, int]]  # (path, identity, camera from 0) of each image


class ReidImageDataset(ImageDataset):
    """A published data set, read from its folder below ``root``, each part in sorted order.

    A subclass sets ``structure`` and :meth:`parse`. A set whose structure has no ``train`` split is a test
    set: it has an empty ``train`` and cannot be a training source.

    Args:
        transform, k_tfm, mode, combineall, verbose: as torchreid's ``ImageDataset``.
        split_id, cuhk03_labeled, cuhk03_classic_split, market1501_500k: unused; torchreid hands them to every data set.

    Raises:
        DPMError: a folder is missing or empty, a file name is not understood, or a test set is to be trained on.
    """

    structure: FolderStructure
    train_on = "market1501"  # what a model for a test set is trained on

    def __init__(
        self,
        root: str | Path = "",
        *,
        transform: Callable | None = None,
        k_tfm: int = 1,
        mode: str = "train",
        combineall: bool = False,
        verbose: bool = True,
        split_id: int = 0,
        cuhk03_labeled: bool = False,
        cuhk03_classic_split: bool = False,
        market1501_500k: bool = False,
    ) -> None:
        if mode == "train" and self.is_test_set():
            name, other = self.structure.name, self.train_on
            instead = f"train on {other} (data.sources: [{other}], data.targets: [{name}])"
            raise DPMError(f"{name} is a test set; {instead}")
        self.root = root
        self.dataset_dir, folders = locate(self.structure, root)
        images: dict[str, Split] = {split: [] for split in folders}
        for split, parts in folders.items():
            for folder, view in parts:
                paths = list_images(folder, self.structure.example, split)
                images[split] += [(path, *self.parse(path, view)) for path in paths]
        images = self.assign_cameras(images)
        self._compare_with_published(images)
        # torchreid looks at train[0]: a test set lends it the queries and forgets them below.
        train = relabel(images["train"]) if "train" in images else images["query"]
        options = dict(transform=transform, k_tfm=k_tfm, mode=mode, combineall=combineall, verbose=False)
        super().__init__(train, images["query"], images["gallery"], **options)
        if self.is_test_set():
            self.train: list[tuple] = []
            self.num_train_pids = self.num_train_cams = self.num_datasets = 0
        self.verbose = verbose
        if verbose:
            self.show_summary()

    @classmethod
    def is_test_set(cls) -> bool:
        """Whether it has no training images."""
        return "train" not in cls.structure.splits

    @classmethod
    def parse(cls, path: str, view: int) -> tuple[int, int]:
        """(pid, camid) of an image: the published identity and the camera index from 0."""
        raise NotImplementedError

    @classmethod
    def assign_cameras(cls, images: dict[str, Split]) -> dict[str, Split]:
        """``images``, by split, with camera ids that depend on the whole data set."""
        return images

    def camera_of(self, camid: int) -> int:
        """The camera behind a camera id: the evaluation's rule can need ids that tell more than the camera."""
        return camid

    def _compare_with_published(self, images):
        for split, published in self.structure.published.items():
            found = len(images[split]), len({pid for _, pid, _ in images[split]})
            if found != published:
                has = f"has {found[0]} images of {found[1]} identities in '{self.dataset_dir}'"
                text = f"{self.structure.name}: {split} {has}, published are {published[0]} of {published[1]}"
                warnings.warn(text, stacklevel=3)

    def combine_all(self) -> None:
        """Add query and gallery to the training set, their identities numbered in sorted order."""
        # torchreid's own version numbers in set order and fails on a query identity that the gallery lacks.
        if self.is_test_set():
            return
        self.train = combined(self.train, self.query + self.gallery, self.num_train_pids)
        self.num_train_pids = self.get_num_pids(self.train)
        self.num_train_cams = self.get_num_cams(self.train)


def combined(train: list[tuple], test: list[tuple], num_train_pids: int) -> list[tuple]:
    """``train`` and ``test``, (path, pid, camid, dsetid) each, the latter's identities numbered on in sorted order."""
    label = {pid: num_train_pids + index for index, pid in enumerate(sorted({pid for _, pid, _, _ in test}))}
    return train + [(path, label[pid], camid, dset) for path, pid, camid, dset in test]


def relabel(images: Split) -> Split:
    """``images`` with their identities numbered from 0 in sorted order."""
    label = {pid: index for index, pid in enumerate(sorted({pid for _, pid, _ in images}))}
    return [(path, label[pid], camid) for path, pid, camid in images]
