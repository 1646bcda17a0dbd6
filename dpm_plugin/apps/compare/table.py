"""A comparison as a Markdown table for people and as CSV for programs."""

from pathlib import Path

from dpm_plugin.apps.compare.comparing import Comparison, Row
from dpm_plugin.apps.compare.cost import Cost
from dpm_plugin.apps.compare.page import csv_text, markdown_table
from dpm_plugin.apps.compare.spread import deviation, mean, mean_spread

COST_COLUMNS = ("params (M)", "GFLOPs", "train (img/s)", "extract (img/s)", "train (MB)", "extract (MB)")
CSV_COLUMNS = (
    *"model target row seeds rank1_mean rank1_std mAP_mean mAP_std epochs train_seconds_mean".split(),
    *Cost._fields,
)


def markdown(comparison: Comparison, command: str) -> str:
    """The table, what its columns mean, and the command that made it."""
    heads = [head for target in comparison.targets for head in (f"{target} rank-1", "mAP")]
    heads = ["model", *heads, "epochs", "training (min)", *COST_COLUMNS]
    table = "\n".join(markdown_table(heads, [_cells(row) for row in comparison.rows], rule="---:"))
    notes = "\n".join(f"- {note}" for note in _notes(comparison))
    return (
        f"# Models compared, budget {comparison.budget} of training each\n\n{table}\n\n{notes}\n\n```\n{command}\n```\n"
    )


def _cells(row: Row) -> list[str]:
    cost = row.cost
    numbers = [values for accuracy in row.accuracy.values() for values in (accuracy.rank1, accuracy.mAP)]
    return [
        row.model,
        *(mean_spread(values, scale=100, missing="—") for values in numbers),
        str(row.epochs),
        mean_spread(row.train_seconds, scale=1 / 60, missing="—"),
        f"{cost.parameters / 1e6:.2f}",
        f"{cost.flops / 1e9:.3f}",
        f"{cost.train_images_per_second:,.0f}",
        f"{cost.extract_images_per_second:,.0f}",
        *("—" if memory is None else f"{memory:,.0f}" for memory in (cost.train_memory_mb, cost.extract_memory_mb)),
    ]


def _notes(comparison: Comparison) -> list[str]:
    config = comparison.config
    device, memory = "GPU", "allocated on the GPU"
    if not config.use_gpu:
        device = f"CPU, {comparison.threads} thread{'s' * (comparison.threads != 1)}"
        idle = max(row.cost.idle_memory_mb or 0 for row in comparison.rows)
        memory = f"of a process of its own, of which Python and the libraries are {idle:,.0f}"
    rows = sorted({accuracy.row for row in comparison.rows for accuracy in row.accuracy.values()})
    return [
        f"Settings of {Path(comparison.config_file).name or 'the defaults'}, images of "
        f"{config.data.height}x{config.data.width}, trained on {', '.join(config.data.sources)} from "
        f"{'ImageNet weights' if config.model.pretrained else 'random weights'}.",
        f"rank-1 and mAP in percent, mean ± standard deviation over seeds {', '.join(map(str, comparison.seeds))}; "
        f"rows {', '.join(rows)}.",
        "GFLOPs: extraction of one image, a multiply-add counted as 2 (matrix products and convolutions).",
        f"img/s: images a second on {device}, in batches of {config.train.batch_size} in training and "
        f"{config.test.batch_size} in extraction, the reading of images included (its share: compare.csv). "
        "An iteration of DPM is its two steps.",
        f"MB: peak memory {memory}.",
    ]


def csv_table(comparison: Comparison) -> str:
    """A line for each model and target: unrounded, rank-1 and mAP in [0, 1], empty where not known."""
    lines = [
        [
            row.model,
            target,
            accuracy.row,
            len(accuracy.rank1),
            mean(accuracy.rank1),
            deviation(accuracy.rank1),
            mean(accuracy.mAP),
            deviation(accuracy.mAP),
            row.epochs,
            mean(row.train_seconds),
            *row.cost,
        ]
        for row in comparison.rows
        for target, accuracy in row.accuracy.items()
    ]
    return csv_text(CSV_COLUMNS, lines)
