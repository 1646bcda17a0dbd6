"""A table as Markdown and CSV: measured mean and spread over seeds beside the paper's values."""

import csv
import io
from pathlib import Path

from dpm_plugin.utils.files import write_file
from experiments.reproduce.measured import METRICS, Measured, headline, mask_rows, measure


def markdown(table, results, dataset, *, command, setting_lines=()):
    """The Markdown page of ``table``.

    Args:
        table: :class:`experiments.reproduce.tables.Table`.
        results: dict of Run to results.json's content.
        dataset: target data set the measured columns are of.
        command: the command line that made it.
        setting_lines: facts about the runs, one bullet each.
    """
    lines = [
        f"# {table.title}",
        "",
        f"Measured on `{dataset}`: mean ± standard deviation over the seeds, in percent; "
        f"n/a: not measured or not published. Paper: published values, on the data set in the heading.",
        "",
    ]
    lines += _grid(*_main_grid(table, results, dataset))
    masks = _mask_grid(table, results, dataset)
    if masks:
        lines += [
            "",
            "What the query's mask does at retrieval (rank-1, then mAP): switched on, off, and each query "
            "given another query's mask; gains are paired by seed.",
            "",
            *_grid(*masks),
        ]
    lines += ["", f"![{table.what}]({table.what}.png)", "", *(f"- {line}" for line in (*table.notes, *setting_lines))]
    lines += ["", *_made_by(command)]
    return "\n".join(lines) + "\n"


def add_command(path, command):
    """Append the command line that made it to the page at ``path``, once."""
    path = Path(path)
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {path.stem}\n\n![{path.stem}]({path.stem}.png)\n"
    if command not in text:
        write_file(path, text.rstrip("\n") + "\n\n" + "\n".join(_made_by(command)) + "\n")


def csv_text(table, results, dataset):
    """CSV, one line a number: row, kind (measured or published), data set, metric, mean, std, seeds, ..."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "kind", "dataset", "metric", "mean", "std", "seeds", "values", "source"])
    for row in table.rows:
        for metric, found in headline(row.runs, results, dataset).items():
            if found.values:
                values = " ".join(f"{seed}:{value:.2f}" for seed, value in found.values.items())
                writer.writerow(
                    [
                        row.name,
                        "measured",
                        dataset,
                        metric,
                        f"{found.mean:.2f}",
                        _two(found.spread),
                        len(found.values),
                        values,
                        row.runs[0].label,
                    ]
                )
        for heading, value in (row.published.values if row.published else {}).items():
            name, _, metric = heading.rpartition(" ")
            writer.writerow([row.name, "published", name, metric, value, "", "", "", row.published.source])
    return file.getvalue()


def _main_grid(table, results, dataset):
    heads = ["", *METRICS, *(f"paper: {heading}" for heading in table.paper), "epochs", "training", "seeds", "source"]
    rows = []
    for row in table.rows:
        found = headline(row.runs, results, dataset)
        published = row.published.values if row.published else {}
        rows.append(
            [
                row.name,
                *map(str, found.values()),
                *(f"{published[heading]:.1f}" if heading in published else "n/a" for heading in table.paper),
                _epochs(row.runs, results),
                _seconds(row.runs, results, dataset),
                str(len(row.runs) or ""),
                row.published.source if row.published else "",
            ]
        )
    return heads, rows


def _mask_grid(table, results, dataset):
    heads = ["", "on", "off", "shuffled", "on − off", "on − shuffled"]
    rows = []
    for row in table.rows:
        names = mask_rows(row.runs, results, dataset)
        for metric in ("R-1", "mAP") if names else ():
            on, off, shuffled = (measure(row.runs, results, dataset, metric, name) for name in names)
            rows.append(
                [f"{row.name}, {metric}", str(on), str(off), str(shuffled), _gain(on, off), _gain(on, shuffled)]
            )
    return (heads, rows) if rows else None


def _gain(one, other):
    gain = Measured({seed: one.values[seed] - other.values[seed] for seed in one.values if seed in other.values})
    return str(gain) if not gain.values or gain.mean < 0 else f"+{gain}"


def _epochs(runs, results):
    epochs = {results[run]["run"]["config"]["train"]["max_epoch"] for run in runs}
    return "–".join(map(str, sorted({min(epochs), max(epochs)}))) if epochs else ""


def _seconds(runs, results, dataset):
    """Mean seconds of training, where the runs measured them."""
    phases = [results[run]["datasets"][dataset]["phases"].get("train") for run in runs]
    return f"{sum(phase['seconds'] for phase in phases) / len(phases):.0f} s" if phases and all(phases) else ""


def _grid(heads, rows):
    cells = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]


def _made_by(command):
    return ["Made by", "", "```", command, "```"]


def _two(value):
    return "" if value is None else f"{value:.2f}"
