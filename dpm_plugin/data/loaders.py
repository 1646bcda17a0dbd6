"""torchreid's loaders with one thing changed, for which its data managers have no argument."""

from torch.utils.data import DataLoader

_KEPT = ("num_workers", "collate_fn", "pin_memory", "worker_init_fn", "prefetch_factor", "persistent_workers")


def loader_like(loader, *, dataset=None, batch_sampler=None, persistent_workers=None):
    """A ``DataLoader`` with the settings of ``loader``, but for what is given.

    Args:
        dataset: read instead of its own.
        batch_sampler: yields lists of positions, instead of its batches.
        persistent_workers: whether its processes live from epoch to epoch.
    """
    settings = {name: getattr(loader, name) for name in _KEPT}
    if persistent_workers is not None:
        settings["persistent_workers"] = persistent_workers
    if batch_sampler is None:
        settings.update(batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last)
    return DataLoader(loader.dataset if dataset is None else dataset, batch_sampler=batch_sampler, **settings)
