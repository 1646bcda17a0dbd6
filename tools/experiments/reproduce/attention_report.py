"""Figures 3 and 4 as PNG, CSV and Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpm_plugin.apps.compare.page import csv_text, markdown_table, png, write_page
from dpm_plugin.utils.errors import DPMError
from experiments.reproduce.attention import Attention, measure_attention

DEFINITIONS = (
    "An entry of a matrix is the cosine of the class-to-patch attention maps (Eq. 5) of two heads of the "
    "last block: the matrix A Aᵀ of Eq. 6. 1: both look at the same patches; 0: at different ones."
)
GAP = (
    "The gap of a block is 1 minus the smallest cosine between the features of two patches of an image, "
    "class token left out, before the final LayerNorm. A small gap: the patches have become alike."
)
CSV_COLUMNS = ("run", "quantity", "row", "column", "value", "spread")
QUANTITIES = ("gap", "smallest", "largest")


def figure3(
    run_folder: str | Path, out_dir: str | Path, *, root: str | Path | None, images: int = 200, device: str = "cpu"
) -> dict:
    """Figure 3: (a) the head correlation of the last block, (b) the largest similarity gap in each block.

    Writes ``figure3.png``, ``figure3.csv`` and ``figure3.md``. The paper shows a run without the head enrich
    module; what the run really had is written above its matrix.

    Args:
        run_folder: the run's ``data.save_dir``.
        out_dir: folder to write to, made where missing.
        root: data root; None keeps the run's.
        images: number of queries to average over, the first among them. Default: 200.
        device: torch device. Default: "cpu".

    Returns:
        dict of the numbers drawn: ``images``, ``image`` (file name of the one image), ``setting``, ``one``,
        ``mean`` and ``spread`` (N, N nested lists), ``off_diagonal`` (``one``, ``mean``, ``std``) and ``blocks``
        (``gap``, ``smallest``, ``largest`` and their ``_std`` each). Every spread is the standard deviation
        over the images.

    Raises:
        DPMError: the run cannot be opened, or its data is missing.
    """
    measured = measure_attention(run_folder, root=root, images=images, device=device)
    numbers = {**_heads(measured), "blocks": _blocks(measured)}
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    one, mean, gap = figure.subplots(1, 3)
    _draw_heads(figure, (one, mean), numbers)
    _draw_gap(gap, numbers["blocks"])
    rows = [
        (numbers["setting"], name, block["block"], "", block[name], block[f"{name}_std"])
        for block in numbers["blocks"]
        for name in QUANTITIES
    ]
    title = "# Figure 3: attention heads and patch features"
    lines = [title, "", *_heads_lines([numbers]), "", GAP, "", *_blocks_lines(numbers["blocks"])]
    _write(out_dir, "figure3", figure, [*_heads_rows(numbers), *rows], lines)
    return numbers


def figure4(
    without_folder: str | Path,
    with_folder: str | Path,
    out_dir: str | Path,
    *,
    root: str | Path | None,
    images: int = 200,
    device: str = "cpu",
) -> dict:
    """Figure 4: the head correlation without and with the head enrich module, on the same images.

    Writes ``figure4.png``, ``figure4.csv`` and ``figure4.md``; arguments as :func:`figure3`.

    Returns:
        {"without": numbers, "with": numbers}, each as of :func:`figure3` less ``blocks``.

    Raises:
        DPMError: a run cannot be opened, or the two have different queries.
    """
    folders = (without_folder, with_folder)
    pair = [measure_attention(folder, root=root, images=images, device=device) for folder in folders]
    if pair[0].names != pair[1].names:
        raise DPMError(
            f"'{without_folder}' and '{with_folder}' were tested on different queries ({pair[0].names[0]} and "
            f"{pair[1].names[0]} come first); figure 4 compares runs on one data set"
        )
    numbers = [_heads(measured) for measured in pair]
    figure = Figure(figsize=(8, 7.4), layout="constrained")
    for axes, side in zip(figure.subplots(2, 2), numbers):
        _draw_heads(figure, axes, side)
    lines = ["# Figure 4: attention heads without and with the head enrich module", "", *_heads_lines(numbers)]
    _write(out_dir, "figure4", figure, [row for side in numbers for row in _heads_rows(side)], lines)
    return dict(zip(("without", "with"), numbers))


def _heads(measured: Attention) -> dict:
    correlation = measured.correlation  # (n, N, N)
    first, second = torch.triu_indices(*correlation.shape[1:], offset=1)
    off_diagonal = correlation[:, first, second].mean(dim=1)  # (n,); NaN for a single head
    return {
        "setting": measured.setting,
        "images": len(correlation),
        "image": measured.names[0],
        "one": correlation[0].tolist(),
        "mean": correlation.mean(dim=0).tolist(),
        "spread": correlation.std(dim=0, correction=0).tolist(),
        "off_diagonal": {
            "one": off_diagonal[0].item(),
            "mean": off_diagonal.mean().item(),
            "std": off_diagonal.std(correction=0).item(),
        },
    }


def _blocks(measured: Attention) -> list[dict[str, float]]:
    low, high = measured.smallest, measured.largest  # (n, L)
    values = dict(zip(QUANTITIES, (1 - low, low, high)))
    return [
        {"block": block + 1}
        | {name: value[:, block].mean().item() for name, value in values.items()}
        | {f"{name}_std": value[:, block].std(correction=0).item() for name, value in values.items()}
        for block in range(low.shape[1])
    ]


def _draw_heads(figure: Figure, axes: Sequence[Axes], numbers: dict) -> None:
    titles = ("one image", f"mean of {numbers['images']} images")
    for axis, matrix, title in zip(axes, (numbers["one"], numbers["mean"]), titles):
        heads = range(len(matrix))
        labels = [head + 1 for head in heads]
        drawn = axis.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        axis.set(title=f"{numbers['setting']}, {title}", xlabel="head", ylabel="head")
        axis.set(xticks=heads, yticks=heads, xticklabels=labels, yticklabels=labels)
        for row, column in ((row, column) for row in heads for column in heads):
            value = matrix[row][column]
            color = "black" if value > 0.6 else "white"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)
        figure.colorbar(drawn, ax=axis, shrink=0.8)


def _draw_gap(axis: Axes, blocks: list[dict[str, float]]) -> None:
    numbers, gaps, spreads = ([block[name] for block in blocks] for name in ("block", "gap", "gap_std"))
    axis.errorbar(numbers, gaps, spreads, marker="o", capsize=3)
    axis.set(title="largest similarity gap between patches", xlabel="block", ylabel="1 − smallest cosine")
    axis.set_xticks(numbers)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)


def _heads_rows(numbers: dict) -> Iterator[tuple]:
    for scope, spread in (("one", None), ("mean", numbers["spread"])):
        for i, row in enumerate(numbers[scope]):
            for j, value in enumerate(row):
                yield numbers["setting"], f"correlation, {scope}", i + 1, j + 1, value, spread and spread[i][j]


def _heads_lines(sides: list[dict]) -> Iterator[str]:
    yield from (DEFINITIONS, "")
    rows = []
    for side in sides:
        off = side["off_diagonal"]
        rows.append((side["setting"], f"{off['one']:.3f}", f"{off['mean']:.3f} ± {off['std']:.3f}"))
    yield from markdown_table(("run", "mean cosine of two heads, one image", "over all images"), rows)
    yield ""
    yield (
        f"One image: `{sides[0]['image']}`. All images: {sides[0]['images']} queries, evenly spaced; "
        "± is the standard deviation over the images."
    )


def _blocks_lines(blocks: list[dict[str, float]]) -> list[str]:
    rows = [
        [str(block["block"]), *(f"{block[name]:.3f} ± {block[f'{name}_std']:.3f}" for name in QUANTITIES)]
        for block in blocks
    ]
    return markdown_table(("block", "gap", "smallest cosine", "largest cosine of two patches"), rows)


def _write(out: str | Path, name: str, figure: Figure, rows: Iterable[tuple], lines: list[str]) -> None:
    text = "\n".join([*lines, "", f"![{name}]({name}.png)", ""])
    write_page(out, name, png=png(figure, dpi=120), csv=csv_text(CSV_COLUMNS, rows), md=text)
