"""Tables and sweeps as PNG, drawn without a display."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.reproduce.measured import headline

COLORS = {"R-1": "#2166ac", "mAP": "#d6604d"}


def table_png(table, results, dataset):
    """PNG bytes: bars of measured rank-1 and mAP with their spread, the paper's values as diamonds."""
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(table.rows)), layout="constrained")
    axis = figure.add_subplot()
    for offset, (metric, color) in zip((-0.2, 0.2), COLORS.items()):
        for place, row in enumerate(table.rows):
            found = headline(row.runs, results, dataset)[metric]
            if found.values:
                axis.barh(place + offset, found.mean, 0.38, color=color, xerr=found.spread, capsize=3)
            for heading, marker in zip(_of_metric(table, metric), "Dos"):
                if row.published and heading in row.published.values:
                    axis.plot(
                        row.published.values[heading],
                        place + offset,
                        marker,
                        color=color,
                        markeredgecolor="black",
                        markersize=6,
                    )
    axis.set_yticks(range(len(table.rows)), [row.name for row in table.rows])
    axis.invert_yaxis()
    axis.set(xlim=(0, 100), xlabel="percent", title=f"{table.title} (bars: measured on {dataset})")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(handles=_legend(axis, table), fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return _png(figure)


def sweep_png(table, results, dataset):
    """PNG bytes: rank-1 and mAP over each of ``table.axes``, with spread; the paper's values as diamonds."""
    rows = {row.name: row for row in table.rows}
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(f"{table.title} (lines: measured on {dataset}; diamonds: paper, Occluded-Duke)")
    for axis, (name, points) in zip(figure.subplots(1, len(table.axes), squeeze=False)[0], table.axes.items()):
        places = range(len(points))
        for metric, color in COLORS.items():
            found = [headline(rows[row].runs, results, dataset)[metric] for row in points.values()]
            spread = [one.spread or 0 for one in found]
            axis.errorbar(places, [one.mean for one in found], spread, color=color, marker="o", capsize=3, label=metric)
            for place, row in zip(places, points.values()):
                published = rows[row].published
                if published and f"Occluded-Duke {metric}" in published.values:
                    axis.plot(
                        place, published.values[f"Occluded-Duke {metric}"], "D", color=color, markeredgecolor="black"
                    )
        axis.set_xticks(places, [f"{value:g}" for value in points])  # evenly: the grids are not
        axis.set(xlabel={"alpha": "α", "beta": "β"}.get(name, name), ylabel="percent")
        axis.grid(alpha=0.3)
        axis.legend()
    return _png(figure)


def _of_metric(table, metric):
    return [heading for heading in table.paper if heading.endswith(f" {metric}")]


def _legend(axis, table):
    handles = [axis.barh(0, 0, color=color, label=metric) for metric, color in COLORS.items()]
    for heading, marker in zip(_of_metric(table, "R-1"), "Dos"):
        handles += axis.plot(
            [], [], marker, color="white", markeredgecolor="black", label=f"paper: {heading.removesuffix(' R-1')}"
        )
    return handles


def _png(figure):
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()
