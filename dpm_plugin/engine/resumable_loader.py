"""Batches of one epoch after another, which go on in the middle of an epoch as if it had never been interrupted."""

import signal

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from dpm_plugin.engine.random_state import drawing_from, random_state, set_random_state
from dpm_plugin.engine.stop_signals import SIGNALS, leave_to_owner
from dpm_plugin.utils.errors import DPMError


class ResumableLoader:
    """A training loader that knows how far its epoch is, and can be put back there.

    What a ``DataLoader`` draws stays bit for bit as it is. To go on after k batches, the generators are put back
    to where they were when the epoch began, so that sampler and processes start alike; the k batches pass as empty
    lists, without reading an image; then the generators are put where they were after them. A loader's processes
    have generators of their own: each batch brings along the state of the process that made it.

    Args:
        loader: torchreid's training loader. A plain ``DataLoader`` is built again over the same data set and
            sampler; of any other iterable the k batches are read and dropped.
        position_seed: whole number: what augmentation draws for an image then depends on this seed, the epoch and
            the image's position in the sampler's order alone, whatever the number of processes. Default: None, off.

    Attributes:
        done: batches of this epoch that were handed out and worked on.
        first: those of them that a resumed epoch passed over.
        epoch: number of the epoch, from 0 on; to be set before each. Only ``position_seed`` needs it.
        after_batch: called without arguments when the next batch, or the end, is asked for.
        without_batch: called without arguments when a batch cannot be had, before the error is raised.
    """

    def __init__(self, loader, position_seed=None):
        self.loader, self.position_seed = loader, position_seed
        self.done = self.epoch = self.first = 0
        self.after_batch = self.without_batch = lambda: None
        self._start = None  # random state when the epoch began
        self._workers = {}  # number of a loader's process -> its random state after its last batch
        self._continued = False  # whether those processes worked before this epoch
        self._resumed = None
        self._rebuilt = None
        if type(loader) is DataLoader and loader.batch_sampler is not None:
            self._order = _Order(loader.batch_sampler, numbered=position_seed is not None)
            self._rebuilt = _rebuild(loader, self._order, position_seed)

    def __len__(self):
        return len(self.loader)

    @property
    def num_workers(self):
        """Processes that load the images."""
        return getattr(self.loader, "num_workers", 0)

    def state(self):
        """What :meth:`resume` needs, as :func:`~dpm_plugin.engine.random_state.random_state` gives it."""
        return {
            "iteration": self.done,
            "batches": len(self),
            "num_workers": self.num_workers,
            "start": self._start if self.done else None,
            "now": random_state(),
            "workers": dict(self._workers),
            "continued": self._continued if self.done else bool(self._workers),
        }

    def resume(self, state):
        """Go on from ``state``: at once with the generators, or, in the middle of an epoch, in its next loop.

        Raises:
            DPMError: in the middle of an epoch that had another number of batches.
        """
        if state["iteration"] and state["batches"] != len(self):
            raise DPMError(
                f"the checkpoint was written after {state['iteration']} of {state['batches']} batches of an epoch, "
                f"which now has {len(self)}; resume with the same data and train.batch_size, or from a checkpoint "
                "at an epoch's end"
            )
        if state["num_workers"] != self.num_workers and self.position_seed is None:
            print(
                f"=> data.workers was {state['num_workers']}, now {self.num_workers}: images are augmented "
                "otherwise than in an undisturbed run"
            )
            state = {**state, "workers": {}, "continued": False}
        self._resumed = state
        if not state["iteration"] and state["now"] is not None:
            set_random_state(state["now"])

    def finish_epoch(self):
        """To be called at the end of an epoch: the next one has no batch done."""
        self.done, self.first, self._start = 0, 0, None
        if not getattr(self.loader, "persistent_workers", False):
            self._workers = {}

    def __iter__(self):
        resumed, self._resumed = self._resumed, None
        skipped = self._begin(resumed)
        for number, (batch, worker, state) in enumerate(self._fetched(resumed is not None, skipped)):
            if number < skipped:
                if number == skipped - 1 and resumed["now"] is not None:
                    set_random_state(resumed["now"])
                continue
            yield batch
            self.done = number + 1
            if worker is not None:
                self._workers[worker] = state
            self.after_batch()

    def _begin(self, resumed):
        """Set the generators for the epoch; returns how many of its batches are done."""
        if resumed is None:
            self.finish_epoch()
            self._continued = bool(self._workers)
        else:
            self.done = self.first = resumed["iteration"]
            self._workers = dict(resumed["workers"])
            self._continued = resumed["continued"]
            if self.done and resumed["start"] is not None:
                set_random_state(resumed["start"])
        self._start = random_state()
        return self.done

    def _fetched(self, resumed, skipped):
        try:
            yield from self._batches(resumed, skipped)
        except RuntimeError:  # a process of the loader ended, or what it raised
            self.without_batch()
            raise

    def _batches(self, resumed, skipped):
        """(batch, number of the process that made it or None, that process's random state)."""
        if self._rebuilt is None:
            return ((batch, None, None) for batch in self.loader)
        self._order.skipped, self._order.epoch = skipped, self.epoch
        self._rebuilt.worker_init_fn = _Started(self.loader.worker_init_fn, self._workers if resumed else {})
        if resumed and self._continued:  # processes that go on drew their seed epochs ago, not in this one
            self._rebuilt.generator = torch.Generator()
        return iter(self._rebuilt)  # starts the processes


def _rebuild(loader, order, position_seed):
    dataset = loader.dataset if position_seed is None else _ByPosition(loader.dataset, position_seed)
    # A generator of its own draws the seed of the processes without moving torch's.
    generator = loader.generator if position_seed is None else torch.Generator()
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=loader.num_workers,
        collate_fn=_Carried(loader.collate_fn),
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        multiprocessing_context=loader.multiprocessing_context,
        generator=generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


class _Order(Sampler):
    """The batches of ``batches``; the first ``skipped`` empty, so that the processes take turns as ever."""

    def __init__(self, batches, numbered):
        self.batches, self.numbered = batches, numbered
        self.skipped = self.epoch = 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        position = 0
        for number, batch in enumerate(self.batches):
            if number < self.skipped:
                yield []
            elif self.numbered:
                yield [(self.epoch, position + offset, index) for offset, index in enumerate(batch)]
            else:
                yield batch
            position += len(batch)


class _Carried:
    """Collates as ``collate``, and adds which process did it and the random state it was left in."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, samples):
        batch, worker = self.collate(samples) if samples else None, get_worker_info()
        return (batch, None, None) if worker is None else (batch, worker.id, random_state())


class _Started:
    """``worker_init_fn`` that leaves signals to the run and starts processes in known random states."""

    def __init__(self, init, states):
        self.init, self.states = init, dict(states)

    def __call__(self, worker):
        for number in SIGNALS:
            signal.signal(number, leave_to_owner)
        if self.init is not None:
            self.init(worker)
        if worker in self.states:
            set_random_state(self.states[worker])


class _ByPosition(Dataset):
    """``dataset``, asked for (epoch, position, index): what it draws follows from the first two and the seed."""

    def __init__(self, dataset, seed):
        self.dataset, self.seed = dataset, seed

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, item):
        epoch, position, index = item
        with drawing_from(self.seed, epoch, position):
            return self.dataset[index]
