"""What the runs of a row found: rank-1, 5, 10 and mAP in percent, by seed."""

from collections.abc import Mapping, Sequence

from dpm_plugin.apps.compare.run import Run

METRICS = ("R-1", "R-5", "R-10", "mAP")
Results = Mapping[Run, dict]  # the content of each run's results.json


def headline(runs: Sequence[Run], results: Results, dataset: str) -> dict[str, dict[int, float]]:
    """{metric: {seed: percent}} of the headline row on ``dataset``, for the runs of one row, one a seed."""
    return {metric: measure(runs, results, dataset, metric) for metric in METRICS}


def measure(
    runs: Sequence[Run], results: Results, dataset: str, metric: str, row: str | None = None
) -> dict[int, float]:
    """{seed: percent} of ``metric`` in result row ``row`` (default: the headline); a seed that has none is missing."""
    values = {}
    for run in runs:
        entry = results[run]["datasets"][dataset]
        value = _metric(entry["headline"] if row is None else entry["rows"].get(row), metric)
        if value is not None:
            values[run.seed] = 100 * value
    return values


def mask_rows(runs: Sequence[Run], results: Results, dataset: str) -> tuple[str, ...] | None:
    """(on, off, shuffled, static) names of the rows in the headline's feature space; None where there is no mask."""
    if not runs:
        return None
    entry = results[runs[0]]["datasets"][dataset]
    space = entry["headline"]["row"].partition("/")[0]
    names = tuple(f"{space}/{state}" for state in ("on", "off", "shuffled", "static"))
    return names if all(name in entry["rows"] for name in names[:3]) else None  # runs of 0.1.0 have no static row


def mask_facts(runs: Sequence[Run], results: Results, dataset: str) -> list[list[float]]:
    """Of every run, [] where unknown: directions that the masks use, rank correlation of parts and visible shares over
    all pairs, and by part."""
    found = [results[run]["datasets"][dataset].get("masks") or {} for run in runs]
    return [
        [entry[name] for entry in found if entry.get(name) is not None] for name in ("directions", "overall", "mean")
    ]


def _metric(row: dict | None, metric: str) -> float | None:
    if row is None:
        return None
    if metric == "mAP":
        return row["mAP"]
    rank = int(metric.removeprefix("R-"))
    return row["cmc"][rank - 1] if rank <= len(row["cmc"]) else None
