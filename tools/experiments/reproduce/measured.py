"""What the runs of a row found: rank-1, 5, 10 and mAP in percent, over seeds."""

import statistics
from typing import NamedTuple

METRICS = ("R-1", "R-5", "R-10", "mAP")


class Measured(NamedTuple):
    """One number over seeds: ``values`` is {seed: percent}; a seed that has none is missing."""

    values: dict

    @property
    def mean(self):
        return statistics.mean(self.values.values()) if self.values else None

    @property
    def spread(self):
        """Sample standard deviation; None below two seeds."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def __str__(self):
        if not self.values:
            return "n/a"
        spread = "" if self.spread is None else f" ± {self.spread:.1f}"
        return f"{self.mean:.1f}{spread}"


def headline(runs, results, dataset):
    """{metric: Measured} of the headline row on ``dataset``.

    Args:
        runs: of one row, one per seed.
        results: dict of Run to results.json's content.
    """
    return {metric: measure(runs, results, dataset, metric) for metric in METRICS}


def measure(runs, results, dataset, metric, row=None):
    """Measured: ``metric`` of result row ``row`` (default: the headline) on ``dataset``."""
    values = {}
    for run in runs:
        entry = results[run]["datasets"][dataset]
        value = _metric(entry["headline"] if row is None else entry["rows"].get(row), metric)
        if value is not None:
            values[run.seed] = 100 * value
    return Measured(values)


def mask_rows(runs, results, dataset):
    """(on, off, shuffled) names of the rows in the headline's feature space; None where there is no mask."""
    if not runs:
        return None
    entry = results[runs[0]]["datasets"][dataset]
    space = entry["headline"]["row"].partition("/")[0]
    names = tuple(f"{space}/{state}" for state in ("on", "off", "shuffled"))
    return names if all(name in entry["rows"] for name in names) else None


def _metric(row, metric):
    if row is None:
        return None
    if metric == "mAP":
        return row["mAP"]
    rank = int(metric.removeprefix("R-"))
    return row["cmc"][rank - 1] if rank <= len(row["cmc"]) else None
