"""The occlusion curve as Markdown, CSV and plots."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpm_plugin.apps.compare.page import csv_text, markdown_table, png, write_page
from dpm_plugin.apps.compare.spread import mean_spread

COLUMNS = ("series", "kind", "share", "hidden", "queries", "rank1", "rank1_std", "mAP", "mAP_std")
RUNS = ("rank1_runs", "mAP_runs")
STYLES = {  # colours that people with colour blindness tell apart
    "DPM, mask on": dict(color="#0072B2", marker="o"),
    "DPM, mask off": dict(color="#56B4E9", marker="s"),
    "DPM, shuffled masks": dict(color="#CC79A7", marker="^"),
    "parts, mask on": dict(color="#004D40", marker="o"),
    "parts, mask off": dict(color="#009E73", marker="s"),
    "parts, shuffled masks": dict(color="#F0C000", marker="^"),
    "baseline": dict(color="#D55E00", marker="x"),
}
GAINS = {
    f"{group}, {other}": f"{group}, mask on" for group in ("DPM", "parts") for other in ("mask off", "shuffled masks")
}


def write_report(numbers: dict, out_dir: str | Path) -> None:
    """Write ``occlusion.png``, ``.csv`` and ``.md`` of what ``occlusion_curve`` measured into ``out_dir``.

    Raises:
        DPMError: the folder cannot be written.
    """
    curve = _Curve(numbers)
    lines = [
        [*(point[name] for name in COLUMNS), *(" ".join(f"{value:.6f}" for value in point[name]) for name in RUNS)]
        for point in numbers["points"]
    ]
    write_page(
        out_dir,
        "occlusion",
        png=png(_figure(curve), dpi=120),
        csv=csv_text((*COLUMNS, *RUNS), lines),
        md="\n".join(_markdown(numbers, curve)) + "\n",
    )


class _Curve:
    """The points by (series, kind, share)."""

    def __init__(self, numbers: dict):
        points = numbers["points"]
        self.points = {(p["series"], p["kind"], p["share"]): p for p in points}
        self.series = list(dict.fromkeys(p["series"] for p in points))
        self.kinds = list(dict.fromkeys(p["kind"] for p in points if p["kind"] != "none")) or ["none"]
        self.shares = sorted({p["share"] for p in points})
        self.gains = [series for series in GAINS if series in self.series]
        self.gain_heads = [series.replace(", ", ": on − ") for series in self.gains]

    def line(self, series: str, kind: str) -> list[dict]:
        """Points of one series and kind by rising share; the unoccluded one belongs to every kind."""
        keys = [(series, "none" if share == 0 else kind, share) for share in self.shares]
        return [self.points[key] for key in keys if key in self.points]

    def average(self, series: str, kind: str) -> np.ndarray:
        """(runs,) of rank-1, each run's mean over the shares above 0; empty where there are none."""
        values = [point["rank1_runs"] for point in self.line(series, kind) if point["share"] > 0]
        return np.mean(values, axis=0) if values else np.empty(0)


def _figure(curve: _Curve) -> Figure:
    others = curve.kinds[1:]
    small_rows = -(-len(others) // 5)
    figure = Figure(figsize=(12, 4.2 + 2.4 * small_rows), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(4.2, 2.4 * small_rows)) if others else (figure,)
    top = parts[0].subplots(1, 2)
    for axis, metric, label in zip(top, ("rank1", "mAP"), ("rank-1", "mAP")):
        _plot(axis, curve, curve.kinds[0], metric)
        title = f"{label}, occluder: {curve.kinds[0]}"
        axis.set(title=title, xlabel="hidden share of the person in %", ylabel=f"{label} in %")
    top[0].legend()
    if others:
        axes = list(parts[1].subplots(small_rows, 5, sharex=True, sharey=True, squeeze=False).flat)
        for axis, kind in zip(axes, others):
            _plot(axis, curve, kind, "rank1", size=3)
            axis.set_title(f"rank-1, {kind}", fontsize=9)
        for axis in axes[len(others) :]:
            axis.set_visible(False)
    return figure


def _plot(axis: Axes, curve: _Curve, kind: str, metric: str, size: int = 5) -> None:
    for series in curve.series:
        line = curve.line(series, kind)
        x, y, spread = (100 * np.array([point[name] for point in line]) for name in ("hidden", metric, f"{metric}_std"))
        axis.plot(x, y, label=series, markersize=size, linewidth=1.2, **STYLES[series])
        axis.fill_between(x, y - spread, y + spread, color=STYLES[series]["color"], alpha=0.15, linewidth=0)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)


def _markdown(numbers: dict, curve: _Curve) -> Iterator[str]:
    runs = ", ".join(f"{count} {group}" for group, count in numbers["runs"].items() if count)
    first = curve.kinds[0]
    yield from ("# Accuracy against the hidden share of the query", "")
    yield (
        f"Runs: {runs}. Feature: {' and '.join(numbers['feature'])} the neck. {numbers['queries']} queries, "
        "each drawn again for every share and kind of occluder with the same person, place and light; the "
        "gallery stays unoccluded. In percent, mean ± standard deviation over the runs."
    )
    yield from ("", f"## Occluder: {first}", "", "Rank-1 / mAP.", "")
    yield from markdown_table(("hidden", "queries", *curve.series), _curve_rows(curve))
    yield from ("", "![occlusion](occlusion.png)", "")
    if curve.gains:
        yield from ("## What the mask adds", "")
        yield (
            "Rank-1 of the mask on less that of the mask off and of shuffled masks, "
            f"occluder: {first}; ± over the differences within a run."
        )
        yield from ("", *markdown_table(("hidden", *curve.gain_heads), _gain_rows(curve)), "")
    yield from ("## By kind of occluder", "")
    yield (
        "Rank-1, averaged over the hidden shares above 0. Every point, with mAP, is in `occlusion.csv`. "
        "A query whose person the kind cannot hide that far is left out; `queries` counts what is left "
        "of all shares."
    )
    yield from ("", *markdown_table(("occluder", "queries", *curve.series, *curve.gain_heads), _kind_rows(curve)))


def _curve_rows(curve: _Curve) -> Iterator[list[str]]:
    for share in curve.shares:
        points = [
            curve.points.get((series, "none" if share == 0 else curve.kinds[0], share)) for series in curve.series
        ]
        if any(points):
            known = next(filter(None, points))
            cells = [" / ".join(_percent(point[name]) for name in RUNS) if point else "—" for point in points]
            yield [f"{100 * known['hidden']:.1f}", str(known["queries"]), *cells]


def _gain_rows(curve: _Curve) -> Iterator[list[str]]:
    pairs = [[curve.line(series, curve.kinds[0]) for series in (GAINS[other], other)] for other in curve.gains]
    for points in zip(*(zip(*pair) for pair in pairs)):
        gains = [np.subtract(on["rank1_runs"], other["rank1_runs"]) for on, other in points]
        yield [f"{100 * points[0][0]['hidden']:.1f}", *(_percent(gain, "+") for gain in gains)]


def _kind_rows(curve: _Curve) -> Iterator[list[str]]:
    for kind in curve.kinds:
        averages = {series: curve.average(series, kind) for series in curve.series}
        known = next((series for series, values in averages.items() if len(values)), None)
        if known is None:
            continue
        count = sum(point["queries"] for point in curve.line(known, kind) if point["share"] > 0)
        gains = [averages[GAINS[series]] - averages[series] for series in curve.gains]
        yield [kind, str(count), *map(_percent, averages.values()), *(_percent(gain, "+") for gain in gains)]


def _percent(values: np.ndarray | list[float], sign: str = "") -> str:
    return mean_spread(list(values), scale=100, sign=sign, missing="—")
