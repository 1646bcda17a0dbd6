"""Tables and sweeps as PNG."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpm_plugin.apps.compare.page import png
from dpm_plugin.apps.compare.spread import deviation, mean
from experiments.reproduce.measured import Results, headline
from experiments.reproduce.tables import Table

COLORS = {"R-1": "#2166ac", "mAP": "#d6604d"}


def table_png(table: Table, results: Results, dataset: str) -> bytes:
    """Bars of measured rank-1 and mAP with their spread, the paper's values as diamonds."""
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(table.rows)), layout="constrained")
    axis = figure.add_subplot()
    for offset, (metric, color) in zip((-0.2, 0.2), COLORS.items()):
        for place, row in enumerate(table.rows):
            found = headline(row.runs, results, dataset)[metric].values()
            if found:
                axis.barh(place + offset, mean(found), 0.38, color=color, xerr=deviation(found), capsize=3)
            for heading, marker in zip(_headings(table, metric), "Dos"):
                if row.published and heading in row.published.values:
                    value = row.published.values[heading]
                    axis.plot(value, place + offset, marker, color=color, markeredgecolor="black", markersize=6)
    axis.set_yticks(range(len(table.rows)), [row.name for row in table.rows])
    axis.invert_yaxis()
    axis.set(xlim=(0, 100), xlabel="percent", title=f"{table.title} (bars: measured on {dataset})")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(handles=_legend(axis, table), fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)


def sweep_png(table: Table, results: Results, dataset: str) -> bytes:
    """Rank-1 and mAP over each of ``table.axes``, with spread; the paper's values as diamonds."""
    rows = {row.name: row for row in table.rows}
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(f"{table.title} (lines: measured on {dataset}; diamonds: paper, Occluded-Duke)")
    for axis, (name, points) in zip(figure.subplots(1, len(table.axes), squeeze=False)[0], table.axes.items()):
        chosen = [rows[row] for row in points.values()]
        places = range(len(points))
        for metric, color in COLORS.items():
            found = [headline(row.runs, results, dataset)[metric].values() for row in chosen]
            spread = [deviation(values) or 0 for values in found]
            axis.errorbar(places, list(map(mean, found)), spread, color=color, marker="o", capsize=3, label=metric)
            for place, row in zip(places, chosen):
                value = row.published and row.published.values.get(f"Occluded-Duke {metric}")
                if value is not None:
                    axis.plot(place, value, "D", color=color, markeredgecolor="black")
        axis.set_xticks(places, [f"{value:g}" for value in points])  # evenly: the grids are not
        axis.set(xlabel={"alpha": "α", "beta": "β"}.get(name, name), ylabel="percent")
        axis.grid(alpha=0.3)
        axis.legend()
    return png(figure)


def _headings(table: Table, metric: str) -> list[str]:
    return [heading for heading in table.paper if heading.endswith(f" {metric}")]


def _legend(axis: Axes, table: Table) -> list:
    handles = [axis.barh(0, 0, color=color, label=metric) for metric, color in COLORS.items()]
    for heading, marker in zip(_headings(table, "R-1"), "Dos"):
        label = f"paper: {heading.removesuffix(' R-1')}"
        handles += axis.plot([], [], marker, color="white", markeredgecolor="black", label=label)
    return handles
