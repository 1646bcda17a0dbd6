"""Functions run in several real processes, joined as torchrun joins them but forks of the test process."""

import multiprocessing
import os
import sys
from typing import NamedTuple

import torch
from torch.distributed import TCPStore

from helpers.forks import write_to

SECONDS = 240  # a child that is not done by then hangs


class Finished(NamedTuple):
    """One process: its exit code (negative: the signal), what the function returned, its stderr."""

    code: int
    result: object
    stderr: str


def in_processes(folder, function, *arguments, size=2, timeout=5.0, patience=SECONDS):
    """Run ``function(processes, *arguments)`` of a module in ``size`` processes; returns a Finished for each.

    Args:
        folder: an empty one for their output.
        arguments: picklable, as is what the function returns (by torch.save).
        timeout: minutes, as dist.timeout.
        patience: seconds that the others get once rank 0 is done; then they are killed.
    """
    context = multiprocessing.get_context("fork")
    # As torchrun does: the store is the launcher's, and outlives each of the processes.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    children = [
        context.Process(target=_child, args=(function, rank, size, store.port, str(folder), timeout, arguments))
        for rank in range(size)
    ]
    for child in children:
        child.start()
    for rank, child in enumerate(children):
        child.join(SECONDS if rank == 0 else patience)
        if child.is_alive():
            child.kill()
            child.join()
    return [_finished(child.exitcode, folder, rank) for rank, child in enumerate(children)]


def results_of(finished):
    """What every process returned, after checking that all of them came to their end."""
    assert [each.code for each in finished] == [0] * len(finished), [each.stderr for each in finished]
    return [each.result for each in finished]


def _finished(code, folder, rank):
    path = folder / f"{rank}.pt"
    result = torch.load(path, weights_only=False) if path.exists() else None
    return Finished(code, result, (folder / f"{rank}.err").read_text())


def _child(function, rank, size, port, folder, timeout, arguments):
    from dpm_plugin.distributed.processes import launched
    from dpm_plugin.utils.command import exit_code

    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",
    )
    write_to(os.devnull, f"{folder}/{rank}.err")

    def work():
        with launched() as processes, processes.joined(timeout=timeout):
            torch.save(function(processes, *arguments), f"{folder}/{rank}.pt")

    sys.exit(exit_code(work))
