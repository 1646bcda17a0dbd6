"""Time and memory against size, as curves."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

from dpm_plugin.apps.compare.page import png
from dpm_plugin.utils.errors import DPMError
from experiments.benchmark.report import Comparison

# Part -> (title, what the sizes count).
PARTS = {
    "head": ("How masked ArcFace of 64 images, with its gradients, grows with the identities", "training identities"),
    "search": ("How the exact masked search, top 50 for 100 queries, grows with the gallery", "gallery images"),
}
LABELS = {
    ("head", "ours"): "ours: masked ArcFace (Eq. 7)",
    ("search", "ours"): "ours: exact search, block by block",
    ("search", "bare"): "plain: two whole matrix products and a top-k",
}
COLORS = {"ours": "#0072B2", "bare": "#D55E00"}
# Field of a Comparison, label, scale: memory above the start can be 0.
AXES = (("seconds", "seconds a call", "log"), ("memory_mb", "memory above the start (MB)", "symlog"))


def growth_png(comparisons: Sequence[Comparison]) -> bytes:
    """PNG with one row of axes for each part that has cases of several sizes: seconds, peak memory.

    Args:
        comparisons: of one run; those with ``size`` are drawn, each contender as a line over the sizes.

    Raises:
        DPMError: no part grows.
    """
    parts = {}
    for comparison in comparisons:
        if comparison.size is not None:
            parts.setdefault(comparison.part, []).append(comparison)
    parts = {part: grown for part, grown in parts.items() if len(grown) > 1}
    if not parts:
        raise DPMError("--plot draws parts that are measured at several sizes: head, search or all")
    figure = Figure(figsize=(10, 4 * len(parts)), layout="constrained")
    rows = figure.subfigures(len(parts), 1, squeeze=False)[:, 0]
    for row, (part, grown) in zip(rows, parts.items()):
        title, unit = PARTS[part]
        row.suptitle(title, fontweight="bold")
        axes = row.subplots(1, 2)
        for axis, (field, label, scale) in zip(axes, AXES):
            for contender in grown[0].seconds:
                values = [(each.size, getattr(each, field).get(contender)) for each in grown]
                points = [(size, value) for size, value in values if value is not None]
                if points:
                    name = LABELS[part, contender]
                    axis.plot(*zip(*points), marker="o", color=COLORS[contender], label=name)
            axis.set(xscale="log", yscale=scale, xlabel=f"{unit} (log scale)", ylabel=f"{label}, log scale")
            if scale == "symlog":  # which would show as much below 0 as above
                axis.set_ylim(0, 3 * max(1, axis.get_ylim()[1]))
                axis.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1))
            for direction in (axis.xaxis, axis.yaxis):
                direction.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
            axis.grid(alpha=0.3)
        axes[0].legend(loc="lower right")
    return png(figure, dpi=100)
