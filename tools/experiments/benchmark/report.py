"""What a benchmark says: one line a comparison, the ratio first; the same as JSON."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch

from experiments.benchmark.timing import Timing, ratio


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
    ratio: float | None = None
    ours: str = "ours"
    plain: str = "plain"
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    difference: float | None = None
    extra: dict[str, float] = field(default_factory=dict)
    size: int | None = None
    unit: str | None = None


def compared(
    part: str,
    case: str,
    timings: Mapping[str, Timing],
    *,
    ours: str = "ours",
    plain: str = "plain",
    difference: float | None = None,
    extra: Mapping[str, float] | None = None,
) -> Comparison:
    """The :class:`Comparison` of these two of the contenders that ``take_turns`` timed."""
    pair = {name: timing for name, timing in timings.items() if name in (ours, plain)}
    return Comparison(
        part,
        case,
        ratio(pair, plain, ours),
        ours,
        plain,
        {name: timing.median for name, timing in pair.items()},
        {name: timing.memory_mb for name, timing in pair.items() if timing.memory_mb is not None},
        difference,
        dict(extra or {}),
    )


def format_comparison(comparison: Comparison) -> str:
    """Two lines for the screen: ratio, part and case, then seconds, memory, difference and further figures."""
    faster = "" if comparison.ratio is None else f"{comparison.ratio:.2f}x"
    details = []
    for name, seconds in comparison.seconds.items():
        time = f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
        memory = comparison.memory_mb.get(name)
        details.append(f"{name} {time}" + ("" if memory is None else f" (+{memory:,.0f} MB)"))
    if comparison.difference is not None:
        details.append(f"largest difference {comparison.difference:.1e}")
    details += [f"{name} {value:.4g}" for name, value in comparison.extra.items()]
    return f"{faster:>9}  {comparison.part}: {comparison.case}\n" + " " * 11 + ", ".join(details)


def as_json(comparisons: Sequence[Comparison], device: torch.device, threads: int) -> str:
    """The machine, then every comparison, as JSON text."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    machine = {"device": name, "threads": threads, "torch": torch.__version__, "python": platform.python_version()}
    return json.dumps({"machine": machine, "comparisons": [asdict(each) for each in comparisons]}, indent=1) + "\n"
