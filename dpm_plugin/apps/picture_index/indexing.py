"""Embed a folder of pictures once; later only the new and changed ones."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from dpm_plugin.apps.picture_index.reading import list_pictures, read_picture
from dpm_plugin.apps.picture_index.store import FOLDER, add_batch, begin, locked, merge, read_index
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.progress import Progress
from dpm_plugin.utils.text import shown


class Indexed(NamedTuple):
    """What was done: ``count`` pictures in the index, ``embedded`` of them now, ``removed`` ones gone.

    ``unreadable``: one line for each file that was passed over. ``folder``: of the index.
    """

    folder: Path
    count: int
    embedded: int
    removed: int
    unreadable: list


def index_pictures(root, extractor, model, folder=None, report=print):
    """Bring the index of a folder of pictures up to date.

    A picture is embedded where it is new, or its size or time of change is another than in the index. The
    order of an index is that of its sorted paths, so it does not depend on when a picture was added; values
    differ by the rounding of another batch at most. After an interruption the next call goes on: at most one
    batch is lost.

    Args:
        root: folder of the pictures; folders in it are searched too.
        extractor: :class:`dpm_plugin.DPMExtractor`.
        model: its description by :func:`dpm_plugin.apps.picture_index.identity.describe`.
        folder: of the index. Default: ``.dpm_index`` in ``root``.
        report: called with a line on the progress now and then. Default: ``print``.

    Returns:
        Indexed.

    Raises:
        DPMError: no readable picture, an index of another model or folder, or a folder that cannot be
            written. An index that was there stays as it is.
    """
    root, folder = Path(root), Path(root) / FOLDER if folder is None else Path(folder)
    names = list_pictures(root, leave_out=folder)
    with locked(folder):
        known = {}
        if (folder / "index.json").exists():
            index = read_index(folder)
            check_model(index, model)
            _check_root(index, root)
            known = dict(zip(index.paths, index.stamps))
        present = {name: _stamp(root / name) for name in names}
        wanted = [name for name in names if name not in known or known[name] != present[name]]
        unreadable = _embed(wanted, present, extractor, root, folder, model, report)
        if len(unreadable) == len(names):
            raise DPMError(
                f"none of the {len(names)} pictures in '{shown(root)}' can be read; the first: {unreadable[0]}"
            )
        index = read_index(folder)
        keep = [row for row, name in enumerate(index.paths) if present.get(name) == index.stamps[row]]
        removed = len(known.keys() - present.keys())
        if index.batches or len(keep) < len(index.paths) or index.root != root.resolve():
            merge(index, keep, root)
    return Indexed(folder, len(keep), len(wanted) - len(unreadable), removed, unreadable)


def check_model(index, model):
    """Refuse an index that another model made; ``model`` as in :func:`index_pictures`.

    Raises:
        DPMError: it was.
    """
    if index.model["fingerprint"] != model["fingerprint"]:
        raise DPMError(
            f"index '{shown(index.folder)}' was made by another model ('{index.model['name']}' from "
            f"'{index.model['source']}'); use that one, or index again into another folder"
        )


def _check_root(index, root):
    # A root that is gone was moved, and its index with it or not.
    if index.root != root.resolve() and index.root.exists():
        raise DPMError(
            f"index '{shown(index.folder)}' is of the pictures in '{shown(index.root)}', not of those in "
            f"'{shown(root)}'; name another --index"
        )


def _stamp(path):
    try:
        status = os.stat(path)
    except OSError:  # a broken link; reading it will say so
        return None
    return status.st_size, status.st_mtime_ns


def _embed(names, stamps, extractor, root, folder, model, report):
    """Embed and store the pictures of these names; returns a line for each unreadable one."""
    unreadable, size = [], extractor.batch_size
    progress = Progress(len(names), "pictures", lambda text: report(f"   embedded: {text}"))

    def prepared(name):
        try:
            return extractor.prepare(read_picture(root / name))
        except DPMError as error:
            return error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
        for start in range(0, len(names), size):
            batch = names[start : start + size]
            images = dict(zip(batch, readers.map(prepared, batch)))
            unreadable += [str(image) for image in images.values() if isinstance(image, DPMError)]
            images = {name: image for name, image in images.items() if isinstance(image, torch.Tensor)}
            if images:
                embedding = extractor(list(images.values())).embedding
                if not embedding.isfinite().all():
                    raise DPMError("the model's embedding of a picture is not finite; was it trained to the end?")
                if not (folder / "index.json").exists():
                    begin(folder, root, model)
                add_batch(folder, list(images), [stamps[name] for name in images], embedding)
            progress.at(start + len(batch))
    return unreadable
