"""Your own people as a data set of torchreid."""

import hashlib
import os
from collections.abc import Callable

from dpm_plugin.data.datasets.reid_dataset import combined, relabel
from dpm_plugin.data.own.people import SPLITS, People, Row
from dpm_plugin.torchreid_host import ImageDataset
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import shown


class OwnDataset(ImageDataset):
    """``people``, each split sorted by path.

    Without cameras every training image has camera 0, and every image of the test a negative number of its own,
    so that the evaluation leaves out nothing but the query itself.

    Args:
        people: without problems.
        transform, k_tfm, mode, combineall, verbose: as torchreid's ``ImageDataset``.
        unused: what torchreid hands to every data set.

    Attributes:
        has_cameras: whether images tell their camera.
        dataset_dir: the folder of the images.

    Raises:
        DPMError: it has no image for ``mode``.
    """

    def __init__(
        self,
        people: People,
        *,
        transform: Callable | None = None,
        k_tfm: int = 1,
        mode: str = "train",
        combineall: bool = False,
        verbose: bool = True,
        **unused: object,
    ) -> None:
        self.has_cameras, self.dataset_dir = people.has_cameras, people.folder
        rows = {split: people.of(split) for split in SPLITS}
        if not rows[mode]:
            if mode == "train":
                advice = "name another in data.sources, or lower data.own.test_share where people are split"
            else:
                advice = "name another in data.targets; people are split where neither folders nor a column say how"
            raise DPMError(f"'{shown(people.name)}' has no {mode} images; {advice}")
        itself = {path: -1 - number for number, path in enumerate(sorted({row.path for row in people.rows}))}

        def entry(row: Row) -> tuple[str, int, int]:
            alone = 0 if row.split == "train" else itself[row.path]
            camid = alone if row.camid is None else people.cameras[row.camid]
            return os.path.join(people.folder, row.path), people.persons[row.pid], camid

        images = {split: list(map(entry, found)) for split, found in rows.items()}
        images["train"] = relabel(images["train"])
        lent = next(found for found in images.values() if found)  # torchreid looks at the first image of each split
        train, query, gallery = (images[split] or lent for split in SPLITS)
        super().__init__(train, query, gallery, transform=transform, k_tfm=k_tfm, mode=mode, verbose=False)
        self.train: list[tuple] = self.train if images["train"] else []
        self.query: list[tuple] = self.query if images["query"] else []
        self.gallery: list[tuple] = self.gallery if images["gallery"] else []
        if combineall:
            self.combine_all()
        self.num_train_pids, self.num_train_cams = self.get_num_pids(self.train), self.get_num_cams(self.train)
        self.data = {"train": self.train, "query": self.query, "gallery": self.gallery}[mode]
        self.combineall, self.verbose = combineall, verbose
        if verbose:
            self.show_summary()

    def combine_all(self) -> None:
        """Add query and gallery to the training set, each image once, their identities numbered in sorted order."""
        test = {entry[0]: entry for entry in [*self.query, *self.gallery]}
        entries = [(path, pid, camid if self.has_cameras else 0, dset) for path, pid, camid, dset in test.values()]
        self.train = combined(self.train, entries, self.num_train_pids)
        self.num_train_pids, self.num_train_cams = self.get_num_pids(self.train), self.get_num_cams(self.train)

    def get_num_cams(self, data: list[tuple]) -> int:
        """Cameras among the entries ``data``; an image's own number is none."""
        return len({entry[2] for entry in data if entry[2] >= 0})


def camera_key(people: People) -> str:
    """What training remembers the cameras of ``people`` by, wherever their folder is moved.

    It names the folder of the images and a digest of the cameras' names: their numbers depend on all of them.
    """
    digest = hashlib.sha256(repr(sorted(people.cameras)).encode("utf-8", "replace")).hexdigest()
    return f"{os.path.basename(people.folder)} {digest[:16]}"
