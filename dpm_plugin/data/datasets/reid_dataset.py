"""What the plugin's data sets share: sorted reading, labels, counts, sets without training images."""

import warnings

from dpm_plugin.data.datasets.folders import list_images, locate
from dpm_plugin.torchreid_host import ImageDataset
from dpm_plugin.utils.errors import DPMError


class ReidImageDataset(ImageDataset):
    """A published data set, read from its folders in sorted order.

    A subclass sets ``layout`` and :meth:`parse`. A set whose layout has no ``train`` split is a test set:
    it has an empty ``train`` and cannot be a training source.

    Args:
        root: folder that holds the data set's folder.
        transform, k_tfm, mode, combineall, verbose: as torchreid's ``ImageDataset``.
        split_id, cuhk03_labeled, cuhk03_classic_split, market1501_500k: unused; torchreid's data manager
            hands them to every data set.

    Raises:
        DPMError: a folder is missing or empty, a file name is not understood, or ``mode="train"`` is
            asked of a test set.
    """

    layout = None
    #: Sets without training images are tried with a model trained on this one.
    train_on = "market1501"

    def __init__(
        self,
        root="",
        *,
        transform=None,
        k_tfm=1,
        mode="train",
        combineall=False,
        verbose=True,
        split_id=0,
        cuhk03_labeled=False,
        cuhk03_classic_split=False,
        market1501_500k=False,
    ):
        if mode == "train" and self.is_test_set():
            name = self.layout.name
            raise DPMError(
                f"{name} is a test set; train on {self.train_on} "
                f"(data.sources: [{self.train_on}], data.targets: [{name}])"
            )
        self.root = root
        self.dataset_dir, folders = locate(self.layout, root)
        images = {split: self.read_split(split, parts) for split, parts in folders.items()}
        images = self.assign_cameras(images)
        self.compare_with_published(images)
        train = relabel(images.get("train", []))
        # torchreid looks at train[0]: a test set lends it the queries and forgets them below.
        super().__init__(
            train or images["query"],
            images["query"],
            images["gallery"],
            transform=transform,
            k_tfm=k_tfm,
            mode=mode,
            combineall=combineall,
            verbose=False,
        )
        if self.is_test_set():
            self.train = []
            self.num_train_pids = self.num_train_cams = self.num_datasets = 0
        self.verbose = verbose
        if verbose:
            self.show_summary()

    @classmethod
    def is_test_set(cls):
        return "train" not in cls.layout.splits

    @classmethod
    def parse(cls, path, view):
        """(pid, camid) of an image: the published identity and the camera index from 0."""
        raise NotImplementedError

    def read_split(self, split, folders):
        """[(path, pid, camid), ...] of the ``(folder, view)`` pairs, sorted by path within each."""
        return [
            (path, *self.parse(path, view))
            for folder, view in folders
            for path in list_images(folder, self.layout.example, split)
        ]

    @classmethod
    def assign_cameras(cls, images):
        """Give camera ids that depend on the whole data set; ``images`` is {split: [(path, pid, camid)]}."""
        return images

    def compare_with_published(self, images):
        for split, wanted in self.layout.published.items():
            found = len(images[split]), len({pid for _, pid, _ in images[split]})
            if found != wanted:
                warnings.warn(
                    f"{self.layout.name}: {split} has {found[0]} images of {found[1]} identities in "
                    f"'{self.dataset_dir}', published are {wanted[0]} of {wanted[1]}",
                    stacklevel=3,
                )

    def combine_all(self):
        """Add query and gallery to the training set, their identities numbered in sorted order.

        torchreid's own version numbers in set order and fails on a query identity that the gallery lacks.
        """
        if self.is_test_set():
            return
        test = self.query + self.gallery
        pids = sorted({pid for _, pid, _, _ in test})
        label = {pid: self.num_train_pids + index for index, pid in enumerate(pids)}
        self.train = self.train + [(path, label[pid], camid, dset) for path, pid, camid, dset in test]
        self.num_train_pids = self.get_num_pids(self.train)
        self.num_train_cams = self.get_num_cams(self.train)


def relabel(images):
    """Number the identities of [(path, pid, camid), ...] from 0 in sorted order."""
    label = {pid: index for index, pid in enumerate(sorted({pid for _, pid, _ in images}))}
    return [(path, label[pid], camid) for path, pid, camid in images]
