"""A table as Markdown and CSV: measured mean and spread over seeds beside the paper's values."""

from collections.abc import Iterable, Iterator, Sequence

from dpm_plugin.apps.compare.page import csv_text, made_by, markdown_table
from dpm_plugin.apps.compare.run import Run
from dpm_plugin.apps.compare.spread import deviation, mean, mean_spread
from experiments.reproduce.measured import METRICS, Results, headline, mask_facts, mask_rows, measure
from experiments.reproduce.tables import Row, Table

CSV_COLUMNS = ("row", "kind", "dataset", "metric", "mean", "std", "seeds", "values", "source")
MASKS = ("off", "shuffled", "static")
MASK_COLUMNS = ("", "on", *MASKS, *(f"on − {other}" for other in MASKS), "directions", "correlation", "by part")
MASK_TEXT = (
    "What the query's mask does at retrieval (rank-1, then mAP): switched on, off, each query given another query's "
    "mask, and all the gallery's mean mask; gains are paired by seed. Directions: how many the queries' masks use "
    "(participation ratio of their covariance). Correlation: between a part's mask and the visible share of its "
    "stripe, by ranks, over all pairs of query and part, and the mean of that of each part."
)


def markdown(table: Table, results: Results, dataset: str, command: str, setting_lines: Iterable[str] = ()) -> str:
    """The Markdown page of ``table``.

    Args:
        dataset: target data set that the measured columns are of.
        command: the command line that made it.
        setting_lines: facts about the runs, one bullet each.
    """
    lines = [
        f"# {table.title}",
        "",
        f"Measured on `{dataset}`: mean ± standard deviation over the seeds, in percent; "
        "n/a: not measured or not published. Paper: published values, on the data set in the heading.",
        "",
    ]
    heads = ["", *METRICS, *(f"paper: {heading}" for heading in table.paper), "epochs", "training", "seeds", "source"]
    lines += markdown_table(heads, [_main_cells(table, row, results, dataset) for row in table.rows])
    masks = [cells for row in table.rows for cells in _mask_cells(row, results, dataset)]
    if masks:
        lines += ["", MASK_TEXT, "", *markdown_table(MASK_COLUMNS, masks)]
    lines += ["", f"![{table.what}]({table.what}.png)", "", *(f"- {line}" for line in (*table.notes, *setting_lines))]
    return "\n".join([*lines, "", *made_by(command), ""])


def csv_table(table: Table, results: Results, dataset: str) -> str:
    """One line a number: row, kind (measured or published), data set, metric, mean, std, seeds, ..."""
    return csv_text(CSV_COLUMNS, [line for row in table.rows for line in _csv_lines(row, results, dataset)])


def _csv_lines(row: Row, results: Results, dataset: str) -> Iterator[Sequence[object]]:
    for metric, found in headline(row.runs, results, dataset).items():
        if found:
            spread = deviation(found.values())
            numbers = f"{mean(found.values()):.2f}", "" if spread is None else f"{spread:.2f}", len(found)
            values = " ".join(f"{seed}:{value:.2f}" for seed, value in found.items())
            yield row.name, "measured", dataset, metric, *numbers, values, row.runs[0].label
    for heading, value in (row.published.values if row.published else {}).items():
        name, _, metric = heading.rpartition(" ")
        yield row.name, "published", name, metric, value, "", "", "", row.published.source


def _main_cells(table: Table, row: Row, results: Results, dataset: str) -> list[str]:
    published = row.published.values if row.published else {}
    return [
        row.name,
        *(mean_spread(found.values()) for found in headline(row.runs, results, dataset).values()),
        *(f"{published[heading]:.1f}" if heading in published else "n/a" for heading in table.paper),
        _epochs(row.runs, results),
        _seconds(row.runs, results, dataset),
        str(len(row.runs) or ""),
        row.published.source if row.published else "",
    ]


def _mask_cells(row: Row, results: Results, dataset: str) -> Iterator[list[str]]:
    names = mask_rows(row.runs, results, dataset)
    facts = [mean_spread(values, digits=2) for values in mask_facts(row.runs, results, dataset)]
    for metric in ("R-1", "mAP") if names else ():
        on, *others = (measure(row.runs, results, dataset, metric, name) for name in names)
        gains = [[on[seed] - other[seed] for seed in on if seed in other] for other in others]
        cells = [mean_spread(found.values()) for found in (on, *others)]
        line = [f"{row.name}, {metric}", *cells, *(mean_spread(gain, sign="+") for gain in gains)]
        yield [*line, *(facts if metric == "R-1" else [""] * len(facts))]


def _epochs(runs: Sequence[Run], results: Results) -> str:
    epochs = {results[run]["run"]["config"]["train"]["max_epoch"] for run in runs}
    return "–".join(map(str, sorted({min(epochs), max(epochs)}))) if epochs else ""


def _seconds(runs: Sequence[Run], results: Results, dataset: str) -> str:
    """Mean seconds of training, where the runs measured them."""
    phases = [results[run]["datasets"][dataset]["phases"].get("train") for run in runs]
    return f"{sum(phase['seconds'] for phase in phases) / len(phases):.0f} s" if phases and all(phases) else ""
