"""From a run's folder to one PNG a query and index.html."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dpm_plugin.apps.query_page import Article, page
from dpm_plugin.apps.visualize.png import draw_article
from dpm_plugin.apps.visualize.query_article import query_article
from dpm_plugin.apps.visualize.query_view import Viewer
from dpm_plugin.apps.visualize.ranking import MARGIN
from dpm_plugin.inference.run_extractor import Extractor, evenly_spaced
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.images import read_image
from dpm_plugin.utils.progress import Progress
from dpm_plugin.utils.text import nearest

HEIGHT = 192  # pixels of an image on the page and in the PNG


def visualize_run(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    root: str | Path | None = None,
    queries: int | Sequence[str] = 24,
    topk: int = 10,
    channels: int = 6,
    dataset: str | None = None,
    device: str | torch.device = "cpu",
    drivers: str = "paint",
    checkpoint: str | Path = "last",
) -> Path:
    """Draw what a finished run sees in its queries.

    Args:
        folder: the run's ``data.save_dir``.
        out: folder to write to, made where missing. Default: ``<folder>/visualize``.
        root: data root; None keeps the run's.
        queries: a number, then that many evenly spaced ones; or a list of file names. Default: 24.
        topk: gallery images in a ranked list. Default: 10.
        channels: mask channels a query. Default: 6.
        dataset: one of the run's targets. Default: the first.
        device: torch device. Default: "cpu".
        drivers: "paint" or "gradient", see :mod:`dpm_plugin.apps.visualize.attribution`. Default: "paint".
        checkpoint: "last", "best" or a path. Default: "last".

    Returns:
        the path of ``index.html``; beside it lies one PNG a query.

    Raises:
        DPMError: the run or its data cannot be opened, a query is unknown, or the folder cannot be written.
    """
    if topk < 1:
        raise DPMError(f"topk, the number of gallery images, must be at least 1, got {topk}")
    run = Extractor(folder, root=root, device=device, dataset=dataset, checkpoint=checkpoint)
    shown: Any = run.loader("query").dataset
    positions = choose_queries([path for path, *_ in shown.query], queries)
    viewer = Viewer(run, channels, drivers)
    out = Path(folder) / "visualize" if out is None else Path(out)
    title = f"{run.config.model.name} on {run.dataset}"
    rows = [(name, row.rank1, row.mAP) for name, row in viewer.result.rows.items()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = page(_drawn(viewer, positions, out, topk), title, _intro(viewer, len(positions)), rows)
        (out / "index.html").write_text(text, encoding="utf-8")
    except OSError as error:
        raise DPMError(f"'{out}' cannot be written: {error.strerror or error}") from error
    return out / "index.html"


def _drawn(viewer: Viewer, positions: Sequence[int], out: Path, topk: int) -> Iterator[Article]:
    """The article of each query, once its PNG is written."""
    manager = viewer.run.datamanager
    size = max(1, round(HEIGHT * manager.width / manager.height)), HEIGHT  # in the model's proportions

    @lru_cache(maxsize=4 * topk)  # the two lists of a query share most of their images
    def opened(path: str) -> Image.Image:
        return read_image(path).resize(size, Image.Resampling.LANCZOS)

    def gallery(position: int) -> tuple[str, Image.Image]:
        return viewer.gallery.paths[position], opened(viewer.gallery.paths[position])

    progress = Progress(len(positions), "queries", lambda text: print(f"   drawn: {text}", flush=True))
    for done, position in enumerate(positions, start=1):
        view = viewer.view(position)
        article = query_article(view, opened(view.path), gallery, topk, viewer.drivers)
        draw_article(article).save(out / png_name(article))
        yield article
        progress.at(done)


def _intro(viewer: Viewer, count: int) -> str:
    run = viewer.run
    intro = (
        f"{count} of {len(viewer.query)} queries and a gallery of {len(viewer.gallery)} images, "
        f"after {run.epoch} epochs, seed {run.config.train.seed}. Gallery images of the query's own identity "
        "and camera are left out, as in the metric. "
    )
    if run.model.has_mask:
        intro += (
            f"The mask helped or hurt a query where its average precision (AP) rose or fell by {MARGIN} "
            "or more, as another query's mask seldom makes it; (was 5) is a gallery image's rank without the mask. "
            f"The lists compare the features {run.feature} the neck. "
        )
    return intro + "The table is the evaluation of all queries."


def choose_queries(paths: Sequence[str], chosen: int | Sequence[str]) -> list[int]:
    """Positions of the queries to show, among those of ``paths``.

    Args:
        chosen: a number, or a list of names: a file's name with or without its ending, or the end of its path.

    Raises:
        DPMError: fewer than one query, or a name that no query has; the message says the nearest one.
    """
    if isinstance(chosen, int):
        return evenly_spaced(len(paths), chosen)
    if not chosen:
        raise DPMError("no query was named; give a number or file names")
    known, positions = [Path(path) for path in paths], []
    for name in chosen:
        parts = Path(name).parts
        fits = [name == path.stem or parts and path.parts[-len(parts) :] == parts for path in known]
        if not any(fits):
            near = nearest(name, [path.name for path in known]) or nearest(name, [path.stem for path in known])
            advice = f"the first is '{known[0].name}'" if near is None else f"the nearest name is '{near}'"
            raise DPMError(f"no query is called '{name}'; {advice}")
        positions += [position for position, fit in enumerate(fits) if fit]
    return list(dict.fromkeys(positions))


def png_name(article: Article) -> str:
    """Name of a query's PNG: its number, then its file's name in letters that every file system has."""
    return f"{article.number:05d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', Path(article.name).stem)[:60]}.png"
