"""What a benchmark says: one line a comparison, the ratio first; the same as JSON."""

import json
import platform
from dataclasses import asdict, dataclass, field

import torch

from experiments.benchmark.timing import ratio


@dataclass
class Comparison:
    """One case of one part.

    Attributes:
        part: as on the command line, "head".
        case: what was computed, with its sizes: "masked ArcFace 64 x 702 x 768, float32".
        ratio: plain seconds / our seconds, the median over rounds; None where there is no contender.
        ours, plain: names of the two contenders that the ratio compares.
        seconds: contender -> median seconds of one call.
        memory_mb: contender -> peak memory above the start, 10^6 bytes.
        difference: largest absolute difference between the two results, None where they were not compared.
        extra: further figures by name, such as recall.
        size, unit: of a case that is measured at several sizes, 100000 and "classes"; else None.
    """

    part: str
    case: str
    ratio: float = None
    ours: str = "ours"
    plain: str = "plain"
    seconds: dict = field(default_factory=dict)
    memory_mb: dict = field(default_factory=dict)
    difference: float = None
    extra: dict = field(default_factory=dict)
    size: int = None
    unit: str = None


def compared(part, case, timings, *, ours="ours", plain="plain", difference=None, extra=None):
    """The :class:`Comparison` of what :func:`~experiments.benchmark.timing.take_turns` returned."""
    return Comparison(
        part,
        case,
        ratio(timings, plain, ours),
        ours,
        plain,
        {name: timing.median for name, timing in timings.items()},
        {name: timing.memory_mb for name, timing in timings.items() if timing.memory_mb is not None},
        difference,
        dict(extra or {}),
    )


def format_comparison(comparison):
    """One line for the screen: ratio, part and case, then seconds, memory, difference and further figures."""
    faster = "" if comparison.ratio is None else f"{comparison.ratio:.2f}x"
    line = f"{faster:>9}  {comparison.part}: {comparison.case}"
    details = [
        f"{name} {_seconds(value)}" + _memory(comparison.memory_mb.get(name))
        for name, value in comparison.seconds.items()
    ]
    if comparison.difference is not None:
        details.append(f"largest difference {comparison.difference:.1e}")
    details += [f"{name} {_figure(value)}" for name, value in comparison.extra.items()]
    return line + "\n" + " " * 11 + ", ".join(details)


def as_json(comparisons, device, threads):
    """The machine, then every comparison, as JSON text."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    machine = {"device": name, "threads": threads, "torch": torch.__version__, "python": platform.python_version()}
    return json.dumps({"machine": machine, "comparisons": [asdict(each) for each in comparisons]}, indent=1) + "\n"


def _seconds(value):
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _memory(value):
    return "" if value is None else f" (+{value:,.0f} MB)"


def _figure(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
