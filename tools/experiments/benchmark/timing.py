"""Contenders timed in one process, in turn, so that a busy machine slows all of them alike."""

import statistics
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from dpm_plugin.utils.timing import measure, peak_memory


@dataclass
class Timing:
    """What one contender took.

    Attributes:
        seconds: of every round.
        memory_mb: highest memory of one call above what was held before it, in 10^6 bytes; allocations on the
            device for CUDA, else resident memory of the process (None where the system does not tell).
        result: what its last call returned.
    """

    seconds: list[float] = field(default_factory=list)
    memory_mb: float | None = None
    result: object = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    warmup: int = 1,
    device: torch.device | str = "cpu",
) -> dict[str, Timing]:
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
            timing, phases = timings[name], {}
            before = _restart_peak(device) if number == 0 else None
            with measure(phases, name, device):
                timing.result = call()
            if number >= warmup:
                timing.seconds.append(phases[name]["seconds"])
            if before is not None:
                timing.memory_mb = max(0.0, phases[name][_peak_key(device)] - before)
    return timings


def ratio(timings: Mapping[str, Timing], plain: str, ours: str) -> float:
    """How many times faster ``ours`` is than ``plain``: the median over rounds of their quotient."""
    pairs = zip(timings[plain].seconds, timings[ours].seconds)
    return statistics.median(slow / fast for slow, fast in pairs)


def scaled(timing: Timing, factor: float) -> Timing:
    """``timing`` of a part of the work, with the seconds of all of it: ``factor`` times as many."""
    return replace(timing, seconds=[factor * seconds for seconds in timing.seconds])


def _restart_peak(device: torch.device) -> float | None:
    """Forget the peak so far and return the memory held now, in 10^6 bytes; None where that can't be done."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 1e6  # measure restarts the peak
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # Linux: peak = what is resident now
        return peak_memory(device)[_peak_key(device)]
    return None


def _peak_key(device: torch.device) -> str:
    return "peak_gpu_memory_mb" if device.type == "cuda" else "peak_memory_mb"
