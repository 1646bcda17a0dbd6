"""``data.corrupt skip``: a training image that cannot be read is replaced by another of its identity."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable

import torch
from torch.utils.data import get_worker_info

from dpm_plugin.torchreid_host import ImageDataset
from dpm_plugin.utils.errors import DPMError, UnreadableImage

SHOWN = 5  # files named on screen; results.json lists all


class SkippingDataset(ImageDataset):
    """The training images of ``dataset``; one that cannot be read is replaced by the next of its identity.

    "Next" is in the order of the training set, going on at its start, so the replacement depends on the files
    alone: not on epoch, worker or process. An image is named on screen when it is replaced for the first time.

    ``workers`` processes (default 0) will load from it; their counts are in memory that all of them share. Reading
    is a DPMError where no image of the identity can be read, or a file is missing.

    Attributes:
        replaced: (processes, images) int64, how often each process replaced each image.
    """

    def __init__(self, dataset: ImageDataset, workers: int = 0) -> None:
        options = dict(transform=dataset.transform, k_tfm=dataset.k_tfm, mode="train", verbose=False)
        super().__init__(dataset.train, dataset.query, dataset.gallery, **options)
        self.replaced = torch.zeros(max(1, workers), len(self.train), dtype=torch.int64).share_memory_()
        self.positions = defaultdict(list)  # identity -> its places in the training set, ascending
        for position, (_, pid, _, _) in enumerate(self.train):
            self.positions[pid].append(position)

    def __getitem__(self, index: int) -> dict:
        try:
            return super().__getitem__(index)
        except UnreadableImage as error:
            if not self.replaced[:, index].any():
                print(f"=> {error}; it was replaced by another image of its identity", flush=True)
            worker = get_worker_info()
            self.replaced[0 if worker is None else worker.id, index] += 1
        same = self.positions[self.train[index][1]]
        start = bisect_left(same, index)
        for position in same[start + 1 :] + same[:start]:
            try:
                return super().__getitem__(position)
            except UnreadableImage:
                pass
        none = f"none of the {len(same)} images of an identity can be read, the first is '{self.train[same[0]][0]}'"
        raise DPMError(f"{none}; replace one by an intact copy, or remove them all")

    @property
    def skipped(self) -> Counter[str]:
        """How often each unreadable image, by its path, was replaced since the start."""
        counts = self.replaced.sum(dim=0)
        return Counter({self.train[index][0]: int(counts[index]) for index in counts.nonzero().flatten().tolist()})


def merge_skipped(counts: Iterable[Counter[str]]) -> dict:
    """The ``skipped_images`` of results.json from each process's counts: {"count": n, "files": {path: n}}."""
    total = sum(counts, Counter())
    return {"count": total.total(), "files": dict(sorted(total.items()))}


def describe_skipped(merged: dict) -> str:
    """One line on what :func:`merge_skipped` gives."""
    files = list(merged["files"])
    shown = ", ".join(f"'{path}'" for path in files[:SHOWN]) + (", ..." if len(files) > SHOWN else "")
    what = f"{len(files)} training images cannot be read: {shown}"
    return f"{merged['count']} times an image was replaced by another image of its identity; {what}"
