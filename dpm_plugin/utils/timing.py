"""Seconds and peak memory of the named phases of a run (extraction, distance, metric, ...)."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

MEGABYTE = 1e6
Phases = dict[str, dict[str, float]]


@contextmanager
def measure(phases: Phases, name: str, device: torch.device | str | None = None) -> Iterator[None]:
    """Add the enclosed work to ``phases[name]``; a name used again sums seconds and keeps the higher peaks.

    An entry holds ``seconds``; ``peak_memory_mb``, the highest resident memory of this process *so far* (10^6 bytes;
    absent on Windows); and where ``device`` is a CUDA device ``peak_gpu_memory_mb``, the highest allocation within.
    """
    device = torch.device(device or "cpu")
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # kernels run on after Python is done
    entry = phases.setdefault(name, {"seconds": 0.0})
    entry["seconds"] += time.perf_counter() - start
    for key, value in peak_memory(device).items():
        entry[key] = max(value, entry.get(key, 0.0))


def peak_memory(device: torch.device) -> dict[str, float]:
    """The peaks that :func:`measure` writes, as they are now, in 10^6 bytes."""
    resident = _peak_resident()
    peaks = {} if resident is None else {"peak_memory_mb": resident / MEGABYTE}
    if device.type == "cuda":
        peaks["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / MEGABYTE
    return peaks


def _peak_resident():
    """Highest resident memory of this process in bytes, or None where the system does not tell."""
    # Not ru_maxrss on Linux: there it starts at the size of the process that started this one.
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def format_phases(phases: Phases) -> str:
    """One line for the screen: seconds of each phase, and the highest memory of all of them."""
    text = "  ".join(f"{name} {entry['seconds']:.1f} s" for name, entry in phases.items())
    for key, label in (("peak_memory_mb", "memory"), ("peak_gpu_memory_mb", "GPU memory")):
        peaks = [entry[key] for entry in phases.values() if key in entry]
        if peaks:
            text += f"  peak {label} {max(peaks):,.0f} MB"
    return text
