"""Time and memory against size, as curves: PNG drawn without a display."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpm_plugin.utils.errors import DPMError

# Field of a Comparison, label, scale: memory above the start can be 0.
AXES = (("seconds", "seconds", "log"), ("memory_mb", "peak memory above the start, MB", "symlog"))


def growth_png(comparisons):
    """PNG bytes with one row of axes for each part that has cases of several sizes: seconds, peak memory.

    Args:
        comparisons: of one run; those with ``size`` are drawn, each contender as a line over the sizes.

    Raises:
        DPMError: no part grows.
    """
    parts = {}
    for comparison in comparisons:
        if comparison.size is not None:
            parts.setdefault((comparison.part, comparison.unit), []).append(comparison)
    parts = {name: grown for name, grown in parts.items() if len(grown) > 1}
    if not parts:
        raise DPMError("--plot draws parts that are measured at several sizes: head, search or all")
    figure = Figure(figsize=(8, 3 * len(parts)), layout="constrained")
    for row, ((part, unit), grown) in zip(figure.subplots(len(parts), 2, squeeze=False), parts.items()):
        for axis, (field, label, scale) in zip(row, AXES):
            for contender in grown[0].seconds:
                points = [
                    (each.size, getattr(each, field)[contender]) for each in grown if contender in getattr(each, field)
                ]
                if points:
                    axis.plot(*zip(*points), marker="o", label=contender)
            axis.set(xscale="log", yscale=scale, xlabel=unit, ylabel=label, title=part)
            if scale == "symlog":  # which would show as much below 0 as above
                axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            axis.legend()
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()
