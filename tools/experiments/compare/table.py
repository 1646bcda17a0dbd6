"""A comparison as a Markdown table for people and as CSV for programs."""

import csv
import io
import statistics
from pathlib import Path

from dpm_plugin.utils.files import write_file

COST_COLUMNS = ("params (M)", "GFLOPs", "train (img/s)", "extract (img/s)", "train (MB)", "extract (MB)")


def write_tables(comparison, out, command=""):
    """Write ``compare.md`` and ``compare.csv`` to the folder ``out`` and return their paths."""
    texts = {"compare.md": markdown(comparison, command), "compare.csv": csv_text(comparison)}
    paths = [Path(out) / name for name in texts]
    for path, text in zip(paths, texts.values()):
        write_file(path, text)
    return paths


def markdown(comparison, command=""):
    """The table, what its columns mean, and the command that made it."""
    header = ["model"]
    for target in comparison.targets:
        header += [f"{target} rank-1", "mAP"]
    header += ["epochs", "training (min)", *COST_COLUMNS]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    lines += [_cells(row, comparison) for row in comparison.rows]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    notes = "\n".join(f"- {note}" for note in _notes(comparison))
    made_by = f"\n```\n{command}\n```\n" if command else ""
    return f"# Models compared, budget {comparison.budget} of training each\n\n{table}\n\n{notes}\n{made_by}"


def _cells(row, comparison):
    cells, cost = [row.model], row.cost
    for target in comparison.targets:
        accuracy = row.accuracy[target]
        cells += [_spread(values, 100) for values in (accuracy.rank1, accuracy.mAP)]
    cells += [str(row.epochs), _spread(row.train_seconds, 1 / 60)]
    cells += [f"{cost.parameters / 1e6:.2f}", f"{cost.flops / 1e9:.3f}"]
    cells += [f"{cost.train_images_per_second:,.0f}", f"{cost.extract_images_per_second:,.0f}"]
    return cells + [_whole(cost.train_memory_mb), _whole(cost.extract_memory_mb)]


def _spread(values, factor):
    """``mean ± standard deviation`` (of a sample; none for one value) times ``factor``; "—" for no value."""
    if not values:
        return "—"
    text = f"{factor * statistics.mean(values):.1f}"
    return text + (f" ± {factor * statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _whole(value):
    return "—" if value is None else f"{value:,.0f}"


def _notes(comparison):
    config, costs = comparison.config, [row.cost for row in comparison.rows]
    seeds = ", ".join(str(seed) for seed in comparison.seeds)
    device = "GPU" if config.use_gpu else f"CPU, {comparison.threads} thread{'s' * (comparison.threads != 1)}"
    rows = sorted({accuracy.row for row in comparison.rows for accuracy in row.accuracy.values()})
    idle = max(cost.idle_memory_mb or 0 for cost in costs)
    memory = (
        "allocated on the GPU"
        if config.use_gpu
        else f"of a process of its own, of which Python and the libraries are {idle:,.0f}"
    )
    return [
        f"Settings of {Path(comparison.config_file).name or 'the defaults'}, pictures of "
        f"{config.data.height}x{config.data.width}, trained on {', '.join(config.data.sources)} from "
        f"{'ImageNet weights' if config.model.pretrained else 'random weights'}.",
        f"rank-1 and mAP in percent, mean ± standard deviation over seeds {seeds}; rows {', '.join(rows)}.",
        "GFLOPs: extraction of one picture, a multiply-add counted as 2 (matrix products and convolutions).",
        f"img/s: pictures a second on {device}, in batches of {config.train.batch_size} in training and "
        f"{config.test.batch_size} in extraction, the reading of pictures included (its share: compare.csv). "
        "An iteration of DPM is its two steps.",
        f"MB: peak memory {memory}.",
    ]


def csv_text(comparison):
    """A line for each model and target: unrounded, rank-1 and mAP in [0, 1], empty where not known."""
    file = io.StringIO()
    fields = [
        "model",
        "target",
        "row",
        "seeds",
        "rank1_mean",
        "rank1_std",
        "mAP_mean",
        "mAP_std",
        "epochs",
        "train_seconds_mean",
        *(comparison.rows[0].cost._fields if comparison.rows else ()),
    ]
    writer = csv.DictWriter(file, fields, lineterminator="\n")
    writer.writeheader()
    for row in comparison.rows:
        for target, accuracy in row.accuracy.items():
            writer.writerow(
                {
                    "model": row.model,
                    "target": target,
                    "row": accuracy.row,
                    "seeds": len(accuracy.rank1),
                    "rank1_mean": _mean(accuracy.rank1),
                    "rank1_std": _deviation(accuracy.rank1),
                    "mAP_mean": _mean(accuracy.mAP),
                    "mAP_std": _deviation(accuracy.mAP),
                    "epochs": row.epochs,
                    "train_seconds_mean": _mean(row.train_seconds),
                    **row.cost._asdict(),
                }
            )
    return file.getvalue()


def _mean(values):
    return statistics.mean(values) if values else None


def _deviation(values):
    return statistics.stdev(values) if len(values) > 1 else None
