"""Contenders timed in one process, in turn, so that a busy machine slows all of them alike."""

import statistics
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from dpm_plugin.utils.timing import peak_memory


@dataclass
class Timing:
    """What one contender took.

    Attributes:
        seconds: of every round.
        memory_mb: highest memory of one call above what was held before it, in 10^6 bytes; allocations on the
            device for CUDA, else resident memory of the process (None where the system does not tell).
        result: what its last call returned.
    """

    seconds: list = field(default_factory=list)
    memory_mb: float = None
    result: object = None

    @property
    def median(self):
        return statistics.median(self.seconds)


def take_turns(contenders, *, rounds=5, warmup=1, device="cpu"):
    """Call every contender once a round.

    Args:
        contenders: name -> function without arguments.
        rounds: timed rounds, at least 1. Default: 5.
        warmup: calls of each before the first round, not timed. Default: 1.
        device: where the work runs; a CUDA device is waited for before the clock stops.

    Returns:
        name -> :class:`Timing`. Memory is that of the first call, warm-up included: a later call finds what
        the earlier ones left with the allocator.
    """
    device = torch.device(device)
    timings = {name: Timing() for name in contenders}
    for number in range(warmup + rounds):
        for name, call in contenders.items():
            timing = timings[name]
            before = _restart_peak(device) if number == 0 else None
            start = time.perf_counter()
            timing.result = call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - start
            if number >= warmup:
                timing.seconds.append(seconds)
            if before is not None:
                timing.memory_mb = max(0.0, _peak(device) - before)
    return timings


def ratio(timings, plain, ours):
    """How many times faster ``ours`` is than ``plain``: the median over rounds of their quotient."""
    pairs = zip(timings[plain].seconds, timings[ours].seconds)
    return statistics.median(slow / fast for slow, fast in pairs)


def scaled(timing, factor):
    """``timing`` of a part of the work, with the seconds of all of it: ``factor`` times as many."""
    return replace(timing, seconds=[factor * seconds for seconds in timing.seconds])


def _restart_peak(device):
    """Forget the peak so far and return the memory held now, in 10^6 bytes; None where that can't be done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 1e6
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # Linux: peak = what is resident now
        return _peak(device)
    return None


def _peak(device):
    return peak_memory(device)["peak_gpu_memory_mb" if device.type == "cuda" else "peak_memory_mb"]
