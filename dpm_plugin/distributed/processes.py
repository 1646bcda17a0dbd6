"""Several processes that torchrun started: rank and size, collective calls, and how they end together.

Each trains on its share of every batch, and gradients are averaged, so that N processes do what one does with the whole
batch. The averaging is done here, after the backward pass, and not by ``DistributedDataParallel``: DPM's two steps open
and freeze parameters in turn, which that wrapper must not see, while a gradient that is None is simply left out here.
"""

import os
import re
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from dpm_plugin.utils.errors import DPMError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # set by torchrun
TIMEOUT = 30.0  # minutes that a process waits for the others, by default
BUCKET = 25 * 2**20  # bytes in one message: large enough to fill the line, small beside a model
T = TypeVar("T")


class Processes:
    """The processes of one run, as one of them sees them; made by :func:`launched`.

    Every process calls every method, in the same order, but for :meth:`seed` and :meth:`send_to_main` to
    :meth:`receive`. With one process nothing is communicated.

    Args:
        rank: number of this process, from 0 on. Rank 0 is the main one: it alone writes files.
        size: how many there are.
        local_rank: number among the processes of this machine, which is the number of its GPU.
        store: torch's key-value store that all of them reach, also before a group exists.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, store: dist.Store | None = None) -> None:
        self.rank, self.size, self.local_rank, self._store = rank, size, local_rank, store
        self.is_main = rank == 0
        self._host: Any = None  # group for what lies in main memory; gradients on a GPU go by the default group
        self._timeout = TIMEOUT

    @contextmanager
    def joined(self, use_gpu: bool = False, timeout: float = TIMEOUT) -> Iterator[None]:
        """Within the block the processes form a group: with ``use_gpu`` by nccl on GPU ``local_rank``, else by gloo.

        Args:
            timeout: minutes that one process waits for another before it gives the run up.

        Raises:
            DPMError: this machine has fewer GPUs than processes, or one of the others does not come or ends.
        """
        if self.size == 1:
            yield
            return
        self._timeout, wait = timeout, timedelta(minutes=timeout)
        of_all: Any = dict(store=self._store, rank=self.rank, world_size=self.size, timeout=wait)
        of_all |= dict(backend="nccl", device_id=self._choose_gpu()) if use_gpu else dict(backend="gloo")
        with self._together():
            dist.init_process_group(**of_all)
            self._host = dist.new_group(backend="gloo", timeout=wait) if use_gpu else dist.group.WORLD
        yield
        dist.destroy_process_group()  # not after an error: it would wait for processes that are gone

    def _choose_gpu(self):
        if self.local_rank >= (found := torch.cuda.device_count()):
            what = f"process {self.rank} is number {self.local_rank + 1} on this machine, which has {found} GPUs"
            raise DPMError(f"{what}, and each process needs one; lower --nproc_per_node or set use_gpu False")
        torch.cuda.set_device(self.local_rank)  # what "cuda" means from here on
        return torch.device("cuda", self.local_rank)

    def seed(self, seed: int) -> int:
        """``seed`` on rank 0, which draws what one process would; elsewhere another, so that no two augment alike."""
        return seed if self.is_main else int(np.random.SeedSequence([seed, self.rank]).generate_state(1)[0])

    def broadcast(self, compute: Callable[[], T]) -> T:
        """The result of ``compute()``, any picklable object, on every process; rank 0 alone calls it."""
        if self.size == 1:
            return compute()
        box: list[Any] = [compute() if self.is_main else None]
        with self._together():
            dist.broadcast_object_list(box, src=0, group=self._host)
        return box[0]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Rank 0 runs the block, then all others do: it downloads or draws a file, they find it."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def barrier(self) -> None:
        """Return when every process has called this."""
        if self.size > 1:
            with self._together():
                dist.barrier(group=self._host)

    def gather(self, value: T) -> list[T] | None:
        """Every process's ``value``, any picklable object, as a list by rank on rank 0; None elsewhere."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_main else None
        with self._together():
            dist.gather_object(value, values, dst=0, group=self._host)
        return values

    def send_to_main(self, tensor: torch.Tensor) -> None:
        """Send a CPU tensor to rank 0, which takes it by :meth:`receive`."""
        with self._together():
            dist.send(tensor.contiguous(), dst=0, group=self._host)

    def receive(self, tensor: torch.Tensor, rank: int) -> torch.Tensor:
        """On rank 0: fill the CPU tensor with what process ``rank`` sends; returns it."""
        with self._together():
            dist.recv(tensor, src=rank, group=self._host)
        return tensor

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """all_reduce: the sum of every process's ``tensor``, all of one shape; differentiable."""
        return tensor if self.size == 1 else _Sum.apply(tensor, self._sum_into)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Every process's (B, ...) as one (size * B, ...), by rank; gradients of all processes flow back, summed."""
        if self.size == 1:
            return tensor
        # A sum of rows that are zero but for one's own: exact, and its gradient is known already.
        zeros = torch.zeros_like(tensor)
        return self.sum(torch.cat([tensor if rank == self.rank else zeros for rank in range(self.size)]))

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """all_reduce: the mean of every process's ``tensor``; changes it, and is not differentiable."""
        return tensor if self.size == 1 else self._sum_into(tensor).div_(self.size)

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, with equal shares of a batch the whole batch's."""
        if self.size > 1:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            _in_buckets(gradients, self.mean)

    @torch.no_grad()
    def broadcast_tensors(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite ``tensors`` with those of rank 0."""
        if self.size > 1:
            with self._together():
                _in_buckets(list(tensors), lambda flat: dist.broadcast(flat, src=0))

    def _sum_into(self, tensor):
        with self._together():
            dist.all_reduce(tensor)
        return tensor

    @contextmanager
    def _together(self):
        """Make torch's error for a lost process a DPMError."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # gloo and nccl raise nothing more telling
            raise DPMError(
                f"process {self.rank} of {self.size} lost the others: one ended (it says why itself, unless the "
                f"system killed it) or gave no answer for dist.timeout, {self._timeout:g} minutes; checkpoints are "
                f"kept, continue with model.resume or train.resume auto ({_reason(error)})"
            ) from error


#: One process without others, as every part of a run has it by default.
ALONE = Processes()


@contextmanager
def launched(timeout: float = TIMEOUT) -> Iterator[Processes]:
    """The :class:`Processes` that torchrun started, or ``ALONE`` where it did not.

    Of several, rank 0 alone prints. When one fails, all end: the first to fail raises its error, the others, which fail
    for lack of it, exit in silence with the same code, and torchrun with code 1.

    Args:
        timeout: minutes that one process waits for the others to come. Default: 30.

    Raises:
        DPMError: torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) lead nowhere, or one
            of the processes does not come.
    """
    if any(name not in os.environ for name in VARIABLES) or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    try:
        rank, size, local_rank = (int(os.environ[name]) for name in VARIABLES)
        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(minutes=timeout)))
    except (ValueError, RuntimeError) as error:
        what = f"the processes of torchrun cannot meet, or one did not come for dist.timeout, {timeout:g} minutes"
        raise DPMError(f"{what} ({_reason(error)})") from error
    processes = Processes(rank, size, local_rank, store)
    with ExitStack() as silence:
        if not processes.is_main:
            silence.enter_context(redirect_stdout(silence.enter_context(open(os.devnull, "w"))))
            silence.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        try:
            yield processes
        except (DPMError, KeyboardInterrupt) as error:
            if _first_to_fail(store):
                raise
            stopped = 128 + getattr(error, "signum", signal.SIGINT)
            raise SystemExit(2 if isinstance(error, DPMError) else stopped) from None
        except BaseException:
            _first_to_fail(store)  # the traceback follows, so the others exit in silence
            raise


def _first_to_fail(store):
    """True for the first process that asks: the one whose error is the cause of the others'."""
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:  # the store's host is gone: no other is known to have failed first
        return True


class _Sum(torch.autograd.Function):
    """y = sum over processes of x: each x moves every process's y, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, tensor, sum_into):
        ctx.sum_into = sum_into
        return sum_into(tensor.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx, gradient):
        return ctx.sum_into(gradient.clone(memory_format=torch.contiguous_format)), None


def _reason(error):
    """The first sentence of torch's message, without the source file before it."""
    return re.sub(r"^\[[^]]*\]\s*", "", str(error).strip().split("\n")[0]).split(". ")[0]


def _in_buckets(tensors, collective):
    """Apply ``collective``, which changes a flat tensor in place, to all ``tensors``, many in one message."""
    bucket = []
    for tensor, following in zip(tensors, [*tensors[1:], None]):
        bucket.append(tensor)
        is_full = sum(each.nbytes for each in bucket) >= BUCKET
        if is_full or following is None or following.dtype != tensor.dtype:
            flat = torch.cat([each.reshape(-1) for each in bucket])
            collective(flat)
            for each, values in zip(bucket, flat.split([each.numel() for each in bucket])):
                each.copy_(values.view_as(each))
            bucket = []
