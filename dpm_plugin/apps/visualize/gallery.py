"""From a run's folder to one PNG a query and index.html."""

import difflib
import re
from functools import lru_cache
from pathlib import Path

from dpm_plugin.apps.visualize.figure import draw_query
from dpm_plugin.apps.visualize.page import page, query_section
from dpm_plugin.apps.visualize.pictures import open_picture
from dpm_plugin.apps.visualize.ranking import SAME
from dpm_plugin.apps.visualize.views import Viewer
from dpm_plugin.inference.run_extractor import Extractor, evenly_spaced
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.progress import Progress


def visualize_run(
    folder, out=None, *, root=None, queries=24, topk=10, channels=6, dataset=None, device="cpu", drivers="paint"
):
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
        drivers: "paint" or "gradient", see :mod:`dpm_plugin.apps.visualize.drivers`. Default: "paint".

    Returns:
        the path of ``index.html``; beside it lies one PNG a query.

    Raises:
        DPMError: the run or its data cannot be opened, a query is unknown, or the folder cannot be written.
    """
    if topk < 1:
        raise DPMError(f"topk, the number of gallery images, must be at least 1, got {topk}")
    run = Extractor(folder, root=root, device=device, dataset=dataset)
    positions = choose_queries([path for path, *_ in run.loader("query").dataset.query], queries)
    viewer = Viewer(run, channels, drivers)
    out = Path(folder) / "visualize" if out is None else Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(viewer, positions, out, topk)
    except OSError as error:
        raise DPMError(f"'{out}' cannot be written: {error.strerror or error}") from error


def _write(viewer, positions, out, topk):
    image_size = viewer.run.datamanager.height, viewer.run.datamanager.width

    @lru_cache(maxsize=4 * topk)  # the two lists of a query share most of their images
    def gallery(position):
        path = viewer.gallery.paths[position]
        return path, open_picture(path, image_size)

    progress = Progress(len(positions), "queries", lambda text: print(f"   drawn: {text}", flush=True))
    sections, outcomes = [], []
    for done, position in enumerate(positions, start=1):
        view = viewer.view(position)
        shown = view, open_picture(view.path, image_size), gallery, topk, viewer.drivers
        draw_query(*shown).savefig(out / png_name(view), format="png")
        sections.append(query_section(*shown))
        outcomes.append(view.outcome)
        progress.at(done)
    index = out / "index.html"
    index.write_text(page(sections, outcomes, *_heading(viewer, positions)), encoding="utf-8")
    return index


def _heading(viewer, positions):
    """Title, introduction and rows of the page."""
    run, result = viewer.run, viewer.result
    title = f"{run.config.model.name} on {run.dataset}"
    intro = (
        f"{len(positions)} of {len(viewer.query)} queries and a gallery of {len(viewer.gallery)} images, "
        f"after {run.epoch} epochs, seed {run.config.train.seed}. Gallery images of the query's own identity "
        "and camera are left out, as in the metric. "
    )
    if run.model.has_mask:
        intro += (
            f"The mask helped or hurt a query where its average precision (AP) rose or fell by {SAME} "
            "or more; (was 5) is a gallery image's rank without the mask. "
            f"The lists compare the features {run.feature} the neck. "
        )
    intro += "The table is the evaluation of all queries."
    return title, intro, [(name, row.rank1, row.mAP) for name, row in result.rows.items()]


def choose_queries(paths, wanted):
    """Positions of the queries to show.

    Args:
        paths: of all queries.
        wanted: a number, or a list of names: a file's name with or without its ending, or the end of its
            path.

    Raises:
        DPMError: fewer than one query, or a name that no query has; the message says the nearest one.
    """
    if isinstance(wanted, int):
        return evenly_spaced(len(paths), wanted)
    if not wanted:
        raise DPMError("no query was named; give a number or file names")
    positions = []
    for name in wanted:
        parts = Path(name).parts
        found = [
            position
            for position, path in enumerate(map(Path, paths))
            if name == path.stem or parts and path.parts[-len(parts) :] == parts
        ]
        if not found:
            near = difflib.get_close_matches(name, [Path(path).name for path in paths], n=1, cutoff=0.0)
            raise DPMError(f"no query is called '{name}'; the nearest name is '{near[0]}'")
        positions += found
    return list(dict.fromkeys(positions))


def png_name(view):
    """Name of a query's PNG: its number, then its file's name in letters that every file system has."""
    return f"{view.position + 1:05d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', Path(view.path).stem)[:60]}.png"
