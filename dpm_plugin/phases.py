"""Seconds and peak memory of the named phases of a run (extraction, distance, metric, ...)."""
import sys
import time
from contextlib import contextmanager

import torch

try:
    import resource
except ImportError:  # not on Windows
    resource = None

__all__ = ["format_phases", "measure"]

MEGABYTE = 1e6


@contextmanager
def measure(phases, name, device=None):
    """Add the enclosed work to ``phases[name]``; a name used again sums seconds and keeps the higher peaks.

    Args:
        phases: dict to fill. An entry holds ``seconds``; ``peak_memory_mb``, the highest resident memory of
            this process *so far* (10^6 bytes; absent on Windows); ``peak_gpu_memory_mb``, the highest
            allocation within the phase, on a CUDA device only.
        name: of the phase.
        device: torch device the work runs on; None or a CPU leaves the GPU unmeasured.
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
    for key, value in _peaks(device).items():
        entry[key] = max(value, entry.get(key, 0.0))


def _peaks(device):
    peaks = {}
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
        peaks["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE
    if device.type == "cuda":
        peaks["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / MEGABYTE
    return peaks


def format_phases(phases):
    """One line for the screen: seconds of each phase, and the highest memory of all of them."""
    text = "  ".join(f"{name} {entry['seconds']:.1f} s" for name, entry in phases.items())
    for key, label in (("peak_memory_mb", "memory"), ("peak_gpu_memory_mb", "GPU memory")):
        peaks = [entry[key] for entry in phases.values() if key in entry]
        if peaks:
            text += f"  peak {label} {max(peaks):,.0f} MB"
    return text
