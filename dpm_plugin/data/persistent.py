"""Loader processes that live from epoch to epoch, which torchreid's data managers have no argument for."""
from torch.utils.data import DataLoader

__all__ = ["persistent"]


def persistent(loader):
    """The same ``DataLoader`` over the same data set and sampler, with processes that it keeps."""
    return DataLoader(
        loader.dataset, batch_size=loader.batch_size, sampler=loader.sampler, num_workers=loader.num_workers,
        pin_memory=loader.pin_memory, drop_last=loader.drop_last, persistent_workers=True)
