"""Figures 3 and 4: how alike the last block's heads attend, and how alike each block's patches are."""

import csv
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

from dpm_plugin.inference.run_extractor import Extractor, evenly_spaced
from dpm_plugin.method.head_enrich import head_correlation
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.progress import Progress

DEFINITIONS = (
    "An entry of a matrix is the cosine of the class-to-patch attention maps (Eq. 5) of two heads of the "
    "last block: the matrix A Aᵀ of Eq. 6. 1: both look at the same patches; 0: at different ones."
)
GAP = (
    "The gap of a block is 1 minus the smallest cosine between the features of two patches of an image, "
    "class token left out, before the final LayerNorm. A small gap: the patches have become alike."
)


def attention_correlation(head_logits):
    """A Aᵀ of Eq. 6: cosine between the heads' attention maps over the patches (Eq. 5).

    Args:
        head_logits: (B, N, P) of :class:`~dpm_plugin.method.vit.EncoderOutput`, before the softmax.

    Returns:
        (B, N, N) float32 in [0, 1].
    """
    return head_correlation(head_logits.float().softmax(dim=-1))


def patch_similarity(patch_map):
    """Smallest and largest cosine between the features of two different patches of an image.

    Args:
        patch_map: (B, C, h, w), at least two patches.

    Returns:
        (smallest, largest), (B,) float32 each.
    """
    patches = F.normalize(patch_map.float().flatten(2), dim=1)  # (B, C, P)
    cosine = patches.transpose(1, 2) @ patches  # (B, P, P)
    first, second = torch.triu_indices(*cosine.shape[1:], offset=1)
    pairs = cosine[:, first, second]  # (B, P (P - 1) / 2)
    return pairs.amin(dim=1), pairs.amax(dim=1)


class Attention(NamedTuple):
    """What :func:`measure_attention` measured on n images with L blocks and N heads.

    Attributes:
        correlation: (n, N, N), see :func:`attention_correlation`.
        smallest, largest: (n, L), see :func:`patch_similarity`.
        names: n file names; the first is the figures' one image.
        setting: the run's head enrich module in words.
    """

    correlation: torch.Tensor
    smallest: torch.Tensor
    largest: torch.Tensor
    names: list
    setting: str


def measure_attention(run_folder, *, root, images=200, device="cpu"):
    """Measure a run's attention on ``images`` of its queries: the first and others evenly spaced.

    Returns:
        Attention.

    Raises:
        DPMError: see :class:`~dpm_plugin.inference.run_extractor.Extractor`.
    """
    run = Extractor(run_folder, root=root, device=device)
    blocks = range(1, run.model.backbone.depth + 1)
    positions = evenly_spaced(len(run.loader("query").dataset), images)
    progress = Progress(len(positions), "images", lambda text: print(f"   attention: {text}", flush=True))
    correlation, smallest, largest, names = [], [], [], []
    for data in run.loader("query", positions):
        encoded = run.encode(data, "query", blocks=blocks, need_heads=True)
        correlation.append(attention_correlation(encoded.head_logits).cpu())
        ranges = [patch_similarity(patch_map) for patch_map in encoded.patch_maps]
        smallest.append(torch.stack([low for low, _ in ranges], dim=1).cpu())
        largest.append(torch.stack([high for _, high in ranges], dim=1).cpu())
        names += [Path(path).name for path in data["impath"]]
        progress.at(len(names))
    setting = _setting(run)
    return Attention(torch.cat(correlation), torch.cat(smallest), torch.cat(largest), names, setting)


def _setting(run):
    # The loss of Eq. 6 is part of DPM's training only, and only with a weight above 0.
    beta = run.config.loss.dpm.beta if run.model.has_mask and run.config.loss.name == "dpm" else 0
    return f"with HEM (β = {beta:g})" if beta else "without HEM"


def figure3(run_folder, out_dir, *, root, images=200, device="cpu"):
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
    lines = [
        "# Figure 3: attention heads and patch features",
        "",
        DEFINITIONS,
        "",
        *_heads_table([numbers]),
        "",
        GAP,
        "",
        *_blocks_table(numbers),
    ]
    rows = [
        *_heads_rows(numbers),
        *(
            (numbers["setting"], name, block["block"], "", block[name], block[f"{name}_std"])
            for block in numbers["blocks"]
            for name in ("gap", "smallest", "largest")
        ),
    ]
    _write(Path(out_dir), "figure3", figure, rows, lines)
    return numbers


def figure4(without_folder, with_folder, out_dir, *, root, images=200, device="cpu"):
    """Figure 4: the head correlation without and with the head enrich module, on the same images.

    Writes ``figure4.png``, ``figure4.csv`` and ``figure4.md``; arguments as :func:`figure3`.

    Returns:
        {"without": numbers, "with": numbers}, each as of :func:`figure3` less ``blocks``.

    Raises:
        DPMError: a run cannot be opened, or the two have different queries.
    """
    pair = [
        measure_attention(folder, root=root, images=images, device=device) for folder in (without_folder, with_folder)
    ]
    if pair[0].names != pair[1].names:
        raise DPMError(
            f"'{without_folder}' and '{with_folder}' were tested on different queries ({pair[0].names[0]} and "
            f"{pair[1].names[0]} come first); figure 4 compares runs on one data set"
        )
    numbers = [_heads(measured) for measured in pair]
    figure = Figure(figsize=(8, 7.4), layout="constrained")
    for axes, side in zip(figure.subplots(2, 2), numbers):
        _draw_heads(figure, axes, side)
    lines = [
        "# Figure 4: attention heads without and with the head enrich module",
        "",
        DEFINITIONS,
        "",
        *_heads_table(numbers),
    ]
    _write(Path(out_dir), "figure4", figure, [row for side in numbers for row in _heads_rows(side)], lines)
    return dict(zip(("without", "with"), numbers))


def _heads(measured):
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


def _blocks(measured):
    low, high = measured.smallest, measured.largest  # (n, L)
    values = {"gap": 1 - low, "smallest": low, "largest": high}
    return [
        {"block": block + 1}
        | {name: value[:, block].mean().item() for name, value in values.items()}
        | {f"{name}_std": value[:, block].std(correction=0).item() for name, value in values.items()}
        for block in range(low.shape[1])
    ]


def _draw_heads(figure, axes, numbers):
    titles = ("one image", f"mean of {numbers['images']} images")
    for axis, matrix, title in zip(axes, (numbers["one"], numbers["mean"]), titles):
        heads = range(len(matrix))
        picture = axis.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        axis.set(
            title=f"{numbers['setting']}, {title}",
            xlabel="head",
            ylabel="head",
            xticks=heads,
            yticks=heads,
            xticklabels=[head + 1 for head in heads],
            yticklabels=[head + 1 for head in heads],
        )
        for row in heads:
            for column in heads:
                value = matrix[row][column]
                axis.text(
                    column,
                    row,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="black" if value > 0.6 else "white",
                )
        figure.colorbar(picture, ax=axis, shrink=0.8)


def _draw_gap(axis, blocks):
    axis.errorbar(
        [b["block"] for b in blocks], [b["gap"] for b in blocks], [b["gap_std"] for b in blocks], marker="o", capsize=3
    )
    axis.set(
        title="largest similarity gap between patches",
        xlabel="block",
        ylabel="1 − smallest cosine",
        xticks=[b["block"] for b in blocks],
    )
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)


def _heads_rows(numbers):
    for scope, spread in (("one", None), ("mean", numbers["spread"])):
        for i, row in enumerate(numbers[scope]):
            for j, value in enumerate(row):
                deviation = "" if spread is None else spread[i][j]
                yield numbers["setting"], f"correlation, {scope}", i + 1, j + 1, value, deviation


def _heads_table(sides):
    yield from ("| run | mean cosine of two heads, one image | over all images |", "| --- | --- | --- |")
    for side in sides:
        off = side["off_diagonal"]
        yield f"| {side['setting']} | {off['one']:.3f} | {off['mean']:.3f} ± {off['std']:.3f} |"
    yield ""
    yield (
        f"One image: `{sides[0]['image']}`. All images: {sides[0]['images']} queries, evenly spaced; "
        "± is the standard deviation over the images."
    )


def _blocks_table(numbers):
    yield "| block | gap | smallest cosine | largest cosine of two patches |"
    yield "| --- | --- | --- | --- |"
    for block in numbers["blocks"]:
        cells = [f"{block[name]:.3f} ± {block[f'{name}_std']:.3f}" for name in ("gap", "smallest", "largest")]
        yield f"| {block['block']} | {' | '.join(cells)} |"


def _write(out, name, figure, rows, lines):
    try:
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / f"{name}.png", dpi=120)
        with open(out / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("run", "quantity", "row", "column", "value", "spread"))
            writer.writerows(rows)
        text = "\n".join([*lines, "", f"![{name}]({name}.png)", ""])
        (out / f"{name}.md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise DPMError(f"'{out}' cannot be written: {error.strerror}; name another output folder") from error
