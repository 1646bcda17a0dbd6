"""The occlusion curve as Markdown, CSV and picture."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dpm_plugin.utils.errors import DPMError

COLUMNS = ("series", "kind", "share", "hidden", "queries", "rank1", "rank1_std", "mAP", "mAP_std")
RUNS = ("rank1_runs", "mAP_runs")
STYLES = {  # colours that people with colour blindness tell apart
    "DPM, mask on": dict(color="#0072B2", marker="o"),
    "DPM, mask off": dict(color="#56B4E9", marker="s"),
    "DPM, shuffled masks": dict(color="#CC79A7", marker="^"),
    "baseline": dict(color="#D55E00", marker="x"),
}
GAINS = ("DPM, mask off", "DPM, shuffled masks")


def write_report(numbers, out_dir):
    """Write ``occlusion.png``, ``.csv`` and ``.md`` of what ``occlusion_curve`` measured into ``out_dir``.

    Raises:
        DPMError: the folder cannot be written.
    """
    out = Path(out_dir)
    curve = _Curve(numbers)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _figure(curve).savefig(out / "occlusion.png", dpi=120)
        with open(out / "occlusion.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow((*COLUMNS, *RUNS))
            for point in numbers["points"]:
                runs = [" ".join(f"{value:.6f}" for value in point[name]) for name in RUNS]
                writer.writerow([*(point[name] for name in COLUMNS), *runs])
        (out / "occlusion.md").write_text("\n".join(_markdown(numbers, curve)) + "\n", encoding="utf-8")
    except OSError as error:
        raise DPMError(f"'{out}' cannot be written: {error.strerror}; name another output folder") from error


class _Curve:
    """The points by (series, kind, share)."""

    def __init__(self, numbers):
        points = numbers["points"]
        self.points = {(p["series"], p["kind"], p["share"]): p for p in points}
        self.series = list(dict.fromkeys(p["series"] for p in points))
        self.kinds = list(dict.fromkeys(p["kind"] for p in points if p["kind"] != "none")) or ["none"]
        self.shares = sorted({p["share"] for p in points})

    def line(self, series, kind):
        """Points of one series and kind by rising share; the unoccluded one belongs to every kind."""
        keys = [(series, "none" if share == 0 else kind, share) for share in self.shares]
        return [self.points[key] for key in keys if key in self.points]

    def average(self, series, kind, metric):
        """(runs,) of ``metric``, each run's mean over the shares above 0; None where there are none."""
        values = [point[f"{metric}_runs"] for point in self.line(series, kind) if point["share"] > 0]
        return np.mean(values, axis=0) if values else None


def _figure(curve):
    others = curve.kinds[1:]
    small_rows = -(-len(others) // 5)
    figure = Figure(figsize=(12, 4.2 + 2.4 * small_rows), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(4.2, 2.4 * small_rows)) if others else (figure,)
    top = parts[0].subplots(1, 2)
    for axis, metric, label in zip(top, ("rank1", "mAP"), ("rank-1", "mAP")):
        _plot(axis, curve, curve.kinds[0], metric)
        axis.set(
            title=f"{label}, occluder: {curve.kinds[0]}",
            xlabel="hidden share of the person in %",
            ylabel=f"{label} in %",
        )
    top[0].legend()
    if others:
        axes = list(parts[1].subplots(small_rows, 5, sharex=True, sharey=True, squeeze=False).flat)
        for axis, kind in zip(axes, others):
            _plot(axis, curve, kind, "rank1", size=3)
            axis.set_title(f"rank-1, {kind}", fontsize=9)
        for axis in axes[len(others) :]:
            axis.set_visible(False)
    return figure


def _plot(axis, curve, kind, metric, size=5):
    for series in curve.series:
        line = curve.line(series, kind)
        x, y, spread = (100 * np.array([point[name] for point in line]) for name in ("hidden", metric, f"{metric}_std"))
        axis.plot(x, y, label=series, markersize=size, linewidth=1.2, **STYLES[series])
        axis.fill_between(x, y - spread, y + spread, color=STYLES[series]["color"], alpha=0.15, linewidth=0)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)


def _markdown(numbers, curve):
    runs = ", ".join(f"{count} {group}" for group, count in numbers["runs"].items() if count)
    yield from ("# Accuracy against the hidden share of the query", "")
    yield (
        f"Runs: {runs}. Feature: {' and '.join(numbers['feature'])} the neck. {numbers['queries']} queries, "
        "each drawn again for every share and kind of occluder with the same person, place and light; the "
        "gallery stays unoccluded. In percent, mean ± standard deviation over the runs."
    )
    yield from ("", f"## Occluder: {curve.kinds[0]}", "", "Rank-1 / mAP.", "")
    yield from _curve_table(curve)
    yield from ("", "![occlusion](occlusion.png)", "")
    if _gains(curve):
        yield from (
            "## What the mask adds",
            "",
            f"Rank-1 of the mask on less that of the mask off and of shuffled masks, occluder: "
            f"{curve.kinds[0]}; ± over the differences within a run.",
            "",
        )
        yield from _gain_table(curve)
        yield ""
    yield from (
        "## By kind of occluder",
        "",
        "Rank-1, averaged over the hidden shares above 0. Every point, with mAP, is in `occlusion.csv`. "
        "A query whose person the kind cannot hide that far is left out; `queries` counts what is left "
        "of all shares.",
        "",
    )
    yield from _kind_table(curve)


def _header(columns):
    return f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"


def _curve_table(curve):
    yield from _header(("hidden", "queries", *curve.series))
    for share in curve.shares:
        kind = "none" if share == 0 else curve.kinds[0]
        row = [curve.points.get((series, kind, share)) for series in curve.series]
        if any(row):
            known = next(point for point in row if point)
            cells = [
                "—"
                if point is None
                else f"{100 * point['rank1']:.1f} ± {100 * point['rank1_std']:.1f} / "
                f"{100 * point['mAP']:.1f} ± {100 * point['mAP_std']:.1f}"
                for point in row
            ]
            yield f"| {100 * known['hidden']:.1f} | {known['queries']} | {' | '.join(cells)} |"


def _gains(curve):
    return [series for series in GAINS if series in curve.series]


def _gain_table(curve):
    against = _gains(curve)
    yield from _header(("hidden", *(f"on − {series.removeprefix('DPM, ')}" for series in against)))
    lines = [curve.line(series, curve.kinds[0]) for series in ("DPM, mask on", *against)]
    for point, *others in zip(*lines):
        cells = [_spread(np.subtract(point["rank1_runs"], other["rank1_runs"]), "+") for other in others]
        yield f"| {100 * point['hidden']:.1f} | {' | '.join(cells)} |"


def _kind_table(curve):
    against = _gains(curve)
    yield from _header(
        ("occluder", "queries", *curve.series, *(f"on − {series.removeprefix('DPM, ')}" for series in against))
    )
    for kind in curve.kinds:
        averages = {series: curve.average(series, kind, "rank1") for series in curve.series}
        known = next((series for series, value in averages.items() if value is not None), None)
        if known is None:
            continue
        count = sum(point["queries"] for point in curve.line(known, kind) if point["share"] > 0)
        cells = ["—" if averages[series] is None else _spread(averages[series]) for series in curve.series]
        cells += [_spread(averages["DPM, mask on"] - averages[series], "+") for series in against]
        yield f"| {kind} | {count} | {' | '.join(cells)} |"


def _spread(values, sign=""):
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{100 * np.mean(values):{sign}.1f} ± {100 * spread:.1f}"
