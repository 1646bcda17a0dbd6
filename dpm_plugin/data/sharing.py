"""Which images each of several processes reads: a part of every training batch, every n-th test batch."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import Sampler

from dpm_plugin.distributed.processes import Processes
from dpm_plugin.torchreid_host import ImageDataManager
from dpm_plugin.utils.errors import DPMError


def share_of_batch(batch_size: int, processes: Processes, num_instances: int = 1) -> int:
    """Images that each process takes of a training batch of ``batch_size`` images.

    The ``num_instances`` (default 1) images of one identity stay together.

    Raises:
        DPMError: it does not divide evenly, or leaves one image, of which BatchNorm makes nothing.
    """
    unit = processes.size * num_instances
    if batch_size % unit == 0 and batch_size >= 2 * processes.size:
        return batch_size // processes.size
    below = batch_size // unit * unit
    sizes = [size for size in (below, below + unit, below + 2 * unit) if size >= 2 * processes.size][:2]
    together = f" in whole identities of sampler.num_instances {num_instances} images" if num_instances > 1 else ""
    raise DPMError(
        f"train.batch_size {batch_size} cannot be shared by {processes.size} processes in equal parts of two or "
        f"more images{together}; the nearest sizes are {' and '.join(map(str, sizes))}"
    )


class TrainShare(Sampler):
    """This process's part of every whole batch of ``sampler``: consecutive images, so that identities stay whole.

    Rank 0 draws the order of an epoch, as a single process would, and broadcasts it. ``batch_size`` counts the
    images of all processes together, a multiple of their number.
    """

    def __init__(self, sampler: Any, batch_size: int, processes: Processes) -> None:
        self.sampler, self.batch_size, self.processes = sampler, batch_size, processes
        self.share = batch_size // processes.size

    def __iter__(self) -> Iterator[int]:
        order = self.processes.broadcast(lambda: list(map(int, self.sampler)))
        for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
            own = start + self.processes.rank * self.share
            yield from order[own : own + self.share]

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size * self.share


class EveryNthBatch(Sampler):
    """The batches rank, rank + size, rank + 2 size, ... of ``count`` images, as lists of positions.

    Whole batches, so that each is computed exactly as a single process computes it, and no image twice.
    """

    def __init__(self, count: int, batch_size: int, processes: Processes) -> None:
        self.count, self.batch_size, self.processes = count, batch_size, processes

    def batches(self, rank: int) -> list[list[int]]:
        """The batches of process ``rank``, which may have none."""
        starts = range(rank * self.batch_size, self.count, self.processes.size * self.batch_size)
        return [list(range(start, min(start + self.batch_size, self.count))) for start in starts]

    def positions(self, rank: int) -> list[int]:
        """The images of process ``rank``, in the order in which it reads them."""
        return [position for batch in self.batches(rank) for position in batch]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches(self.processes.rank))

    def __len__(self) -> int:
        return len(self.batches(self.processes.rank))


def digest_of(entries: Iterable[tuple]) -> str:
    """SHA-256 of the names and labels of images, (path, identity, camera, ...) each, in their order."""
    names = repr([(Path(path).name, labels) for path, *labels in entries])
    return hashlib.sha256(names.encode()).hexdigest()


def check_same_data(datamanager: ImageDataManager, processes: Processes) -> None:
    """Refuse, by a DPMError on each, processes that list their images differently: they would share out other data.

    That can happen with several machines, each with a copy of its own. Folders may differ.
    """
    if processes.size == 1:
        return
    lists = {"the training set": datamanager.train_loader.dataset.train}
    for name, parts in datamanager.test_dataset.items():
        lists.update({f"{side} of '{name}'": entries for side, entries in parts.items()})
    own = {what: digest_of(entries) for what, entries in lists.items()}
    everyone = processes.gather(own) or []  # on rank 0
    others = ((rank, what) for what in own for rank, each in enumerate(everyone) if each.get(what) != own[what])
    other = processes.broadcast(lambda: next(others, None))
    if other:
        rank, what = other
        differs = f"process {rank} lists other images than process 0, or in another order, for {what}"
        raise DPMError(f"{differs}; every machine needs the same files in data.root")
