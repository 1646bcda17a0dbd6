"""Batches of one epoch after another, which go on in the middle of an epoch as if it had never been interrupted.

At the end of the file: the state of every random generator that a run draws from, which makes that possible.
"""

import itertools
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from dpm_plugin.engine.stop_signals import SIGNALS, children_heard_between, leave_to_owner
from dpm_plugin.utils.errors import DPMError

KEPT = ("num_workers", "pin_memory", "timeout", "multiprocessing_context", "prefetch_factor", "persistent_workers")


class ResumableLoader:
    """A training loader that knows how far its epoch is, and can be put back there.

    What a ``DataLoader`` draws stays bit for bit as it is. To go on after k batches, the generators are put back
    to where they were when the epoch began, so that sampler and processes start alike; the k batches pass as empty
    lists, without reading an image; then the generators are put where they were after them. A loader's processes
    have generators of their own: each batch brings along the state of the process that made it.

    Args:
        loader: torchreid's training loader. A plain ``DataLoader`` is built again over the same data set and
            sampler; of anything else the k batches are read and dropped.
        position_seed: what augmentation draws for an image then depends on this seed, the epoch and the image's
            position in the sampler's order alone, whatever the number of processes. Default: None, off.

    Attributes:
        done: batches of this epoch that were handed out and worked on.
        first: those of them that a resumed epoch passed over.
        epoch: from 0 on; to be set before each. Only ``position_seed`` needs it.
        after_batch: called when the next batch, or the end, is asked for.
        without_batch: called with the error when a batch cannot be had, before it is raised.
    """

    def __init__(self, loader: DataLoader | Sequence, position_seed: int | None = None) -> None:
        self.loader, self.position_seed = loader, position_seed
        self.done = self.epoch = self.first = 0
        self.after_batch: Callable[[], None] = lambda: None
        self.without_batch: Callable[[RuntimeError], None] = lambda error: None
        self._start: dict | None = None  # random state when the epoch began
        self._workers: dict[int, dict] = {}  # number of a loader's process -> its random state after its last batch
        self._continued = False  # whether those processes worked before this epoch
        self._resumed: dict | None = None
        self._num_workers = getattr(loader, "num_workers", 0)
        self._rebuilt: DataLoader | None = None
        if type(loader) is DataLoader and loader.batch_sampler is not None:
            self._order = _Order(loader.batch_sampler, numbered=position_seed is not None)
            options = {name: getattr(loader, name) for name in KEPT}
            options |= dict(batch_sampler=self._order, collate_fn=partial(_collate, loader.collate_fn))
            if position_seed is None:
                self._rebuilt = DataLoader(loader.dataset, generator=loader.generator, **options)
            else:  # a generator of its own draws the seed of the processes without moving torch's
                dataset = _ByPosition(loader.dataset, position_seed)
                self._rebuilt = DataLoader(dataset, generator=torch.Generator(), **options)

    def __len__(self) -> int:
        return len(self.loader)

    def is_last(self, number: int) -> bool:
        """Whether batch ``number`` of this epoch, from 1, is the last; a sampler's ``len`` can promise more batches."""
        return number == (len(self) if self._rebuilt is None else self._order.count)

    def state(self) -> dict[str, Any]:
        """What :meth:`resume` needs, with random states as :func:`random_state` gives them."""
        return {
            "iteration": self.done,
            "batches": len(self),
            "num_workers": self._num_workers,
            "start": self._start if self.done else None,
            "now": random_state(),
            "workers": dict(self._workers),
            "continued": self._continued if self.done else bool(self._workers),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from ``state``: at once with the generators, or, in the middle of an epoch, in its next loop."""
        if state["iteration"] and state["batches"] != len(self):
            raise DPMError(
                f"the checkpoint was written after {state['iteration']} of {state['batches']} batches of an epoch, "
                f"which now has {len(self)}; resume with the same data and train.batch_size, or from a checkpoint "
                "at an epoch's end"
            )
        if state["num_workers"] != self._num_workers and self.position_seed is None:
            change = f"data.workers was {state['num_workers']}, now {self._num_workers}"
            print(f"=> {change}: images are augmented otherwise than in an undisturbed run")
            state = {**state, "workers": {}, "continued": False}
        self._resumed = state
        if not state["iteration"] and state["now"] is not None:
            set_random_state(state["now"])

    def finish_epoch(self) -> None:
        """To be called at the end of an epoch: the next one has no batch done."""
        self.done, self.first, self._start = 0, 0, None
        if not getattr(self.loader, "persistent_workers", False):
            self._workers = {}

    def __iter__(self) -> Iterator[Any]:
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            self.finish_epoch()
            self._continued = bool(self._workers)
        else:
            self.done = self.first = resumed["iteration"]
            self._workers, self._continued = dict(resumed["workers"]), resumed["continued"]
            if self.done and resumed["start"] is not None:
                set_random_state(resumed["start"])
        self._start, skipped = random_state(), self.done
        for number, (batch, worker, state) in enumerate(self._batches(resumed is not None, skipped), start=1):
            if number <= skipped:
                if number == skipped and resumed and resumed["now"] is not None:
                    set_random_state(resumed["now"])
                continue
            yield batch
            self.done = number
            if worker is not None and state is not None:
                self._workers[worker] = state
            self.after_batch()

    def _batches(self, resumed: bool, skipped: int) -> Iterator[tuple[Any, int | None, dict | None]]:
        """(batch, number of the process that made it or None, that process's random state)."""
        try:
            if self._rebuilt is None:
                yield from ((batch, None, None) for batch in self.loader)
                return
            self._order.skipped, self._order.epoch = skipped, self.epoch
            init, states = getattr(self.loader, "worker_init_fn", None), dict(self._workers) if resumed else {}
            self._rebuilt.worker_init_fn = partial(_start_process, init, states)
            if resumed and self._continued:  # processes that go on drew their seed epochs ago, not in this one
                self._rebuilt.generator = torch.Generator()
            yield from children_heard_between(iter(self._rebuilt))  # which starts the processes
        except RuntimeError as error:  # a process of the loader ended, or what it raised
            self.without_batch(error)
            raise


def _collate(collate: Callable, samples: list) -> tuple[Any, int | None, dict | None]:
    """The batch of ``collate``, with which process made it and the random state it was left in."""
    batch, worker = collate(samples) if samples else None, get_worker_info()
    return (batch, None, None) if worker is None else (batch, worker.id, random_state())


def _start_process(init: Callable | None, states: dict[int, dict], worker: int) -> None:
    """``worker_init_fn`` that leaves signals to the run and starts processes in known random states."""
    for number in SIGNALS:
        signal.signal(number, leave_to_owner)
    if init is not None:
        init(worker)
    if worker in states:
        set_random_state(states[worker])


class _Order(Sampler):
    """The batches of ``batches``; the first ``skipped`` empty, so that the processes take turns as ever."""

    def __init__(self, batches: Any, numbered: bool) -> None:
        self.batches, self.numbered = batches, numbered
        self.skipped = self.epoch = 0
        self.count: int | None = None  # batches of the epoch, known when the last is handed out

    def __iter__(self) -> Iterator[list]:
        position, self.count = 0, None
        # Looked one batch ahead: samplers have drawn their whole epoch by then, no random number comes sooner for it.
        for number, (batch, following) in enumerate(itertools.pairwise(itertools.chain(self.batches, [None]))):
            if following is None:
                self.count = number + 1
            if number < self.skipped:
                yield []
            elif self.numbered:
                yield [(self.epoch, position + offset, index) for offset, index in enumerate(batch)]
            else:
                yield batch
            position += len(batch)


class _ByPosition(Dataset):
    """``dataset``, asked for (epoch, position, index): what it draws follows from the first two and the seed."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, item: tuple[int, int, int]) -> Any:
        epoch, position, index = item
        with drawing_from(self.seed, epoch, position):
            return self.dataset[index]


def random_state() -> dict[str, Any]:
    """The generators of this process as numpy arrays and plain numbers, fit for a queue between processes."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    words_of_numpy = np.array(keys, dtype=np.int64)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state().numpy(),
        "python": {"version": version, "words": np.array(words, dtype=np.int64), "gauss": gauss},
        "numpy": dict(keys=words_of_numpy, position=int(position), has_gauss=int(has_gauss), gauss=float(cached)),
    }
    if torch.cuda.is_initialized():  # never in a loader's process
        state["cuda"] = torch.cuda.get_rng_state().numpy()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what :func:`random_state` returned, or :func:`as_tensors` made of it; DPMError where it is neither."""
    try:
        python, numpy = state["python"], state["numpy"]
        words, keys = np.asarray(python["words"]), np.asarray(numpy["keys"]).astype(np.uint32)
        random.setstate((python["version"], tuple(words.tolist()), python["gauss"]))
        np.random.set_state(("MT19937", keys, numpy["position"], numpy["has_gauss"], numpy["gauss"]))
        torch.set_rng_state(torch.as_tensor(state["torch"]))
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(torch.as_tensor(state["cuda"]))
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, OverflowError) as error:
        why = "it is damaged, or of other versions of Python, numpy or torch"
        raise DPMError(f"the checkpoint's random states cannot be put back ({error}); {why}") from error


def as_tensors(value: Any) -> Any:
    """``value`` with every numpy array in its dicts and lists as a tensor: what ``weights_only=True`` reads."""
    if isinstance(value, dict):
        return {key: as_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_tensors(item) for item in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@contextmanager
def drawing_from(*numbers: int) -> Iterator[None]:
    """Within the block every generator but the GPU's is seeded by these integers; then all go on as before."""
    before = random_state()
    words = [int(word) for word in np.random.SeedSequence(numbers).generate_state(3)]
    random.seed(words[0])
    np.random.seed(words[1])
    torch.default_generator.manual_seed(words[2])  # torch.manual_seed would seed the GPU too
    try:
        yield
    finally:
        set_random_state(before)
