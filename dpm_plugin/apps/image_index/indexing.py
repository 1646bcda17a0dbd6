"""Embed a folder of images once; later only the new and changed ones."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from dpm_plugin.apps.image_index.store import (
    FOLDER,
    Index,
    Stamp,
    add_batch,
    merge,
    next_number,
    read_index,
    write_list,
    writing,
)
from dpm_plugin.inference.extractor import DPMExtractor
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.images import has_image_ending
from dpm_plugin.utils.progress import Progress
from dpm_plugin.utils.text import shown


class Indexed(NamedTuple):
    """What was done."""

    folder: Path  # of the index
    total: int  # images in it
    embedded: int  # of them now
    removed: int  # that are gone
    unreadable: list[str]  # one line for each file that was passed over


def index_images(root: str | Path, extractor: DPMExtractor, model: dict, folder: str | Path | None = None) -> Indexed:
    """Bring the index of a folder of images up to date.

    An image is embedded where it is new, or its size, times of change or inode are others than in the index. The
    order of an index is that of its sorted paths, so it does not depend on when an image was added; values
    differ by the rounding of another batch at most. After an interruption the next call goes on: at most one
    batch is lost.

    Args:
        root: folder of the images; folders in it are searched too.
        model: description of the extractor's by :func:`dpm_plugin.apps.image_index.fingerprint.describe`.
        folder: of the index. Default: ``.dpm_index`` in ``root``.

    Raises:
        DPMError: no readable image, an index of another model or folder, or a folder that cannot be
            written. An index that was there stays as it is.
    """
    root, folder = Path(root), Path(root) / FOLDER if folder is None else Path(folder)
    names = list_images(root, leave_out=folder)
    with writing(folder):
        known = {}
        if (folder / "index.json").exists():
            index = read_index(folder)
            check_model(index, model)
            if index.root != root.resolve() and index.root.exists():  # one that is gone was moved
                raise DPMError(
                    f"index '{shown(index.folder)}' is of the images in '{shown(index.root)}', not of those in "
                    f"'{shown(root)}'; name another --index"
                )
            known = dict(zip(index.paths, index.stamps))
        present = {name: _stamp(root / name) for name in names}
        new = {name: stamp for name, stamp in present.items() if not _is_same(known.get(name), stamp)}
        unreadable = _embed(new, extractor, root, folder, model)
        if len(unreadable) == len(names):
            raise DPMError(f"none of the {len(names)} images in '{shown(root)}' can be read; first: {unreadable[0]}")
        index = read_index(folder)
        keep = [row for row, name in enumerate(index.paths) if _is_same(index.stamps[row], present.get(name))]
        if index.batches or len(keep) < len(index.paths) or index.root != root.resolve():
            merge(index, keep, root)
    return Indexed(folder, len(keep), len(new) - len(unreadable), len(known.keys() - present.keys()), unreadable)


def check_model(index: Index, model: dict) -> None:
    """Raise DPMError where ``index`` was made by another model than ``model``, as in :func:`index_images`."""
    if index.model["fingerprint"] != model["fingerprint"]:
        raise DPMError(
            f"index '{shown(index.folder)}' was made by another model ('{index.model['name']}' from "
            f"'{index.model['source']}'); use that one, or index again into another folder"
        )


def list_images(folder: str | Path, leave_out: str | Path | None = None) -> list[str]:
    """Files below ``folder`` whose ending belongs to a format that Pillow reads, sorted.

    Hidden files and folders are left out, and so is the folder ``leave_out``.

    Returns:
        paths relative to ``folder``, with forward slashes.

    Raises:
        DPMError: no such folder, it cannot be listed, or there is no image in it.
    """
    folder, hidden = Path(folder), None if leave_out is None else Path(leave_out).resolve()
    if not folder.is_dir():
        raise DPMError(f"'{shown(folder)}' is no folder of images")
    found: list[str] = []
    errors: list[OSError] = []
    for top, folders, files in os.walk(folder, onerror=errors.append):
        place = Path(top)
        folders[:] = [name for name in folders if name[0] != "." and (place / name).resolve() != hidden]
        found += [(place / name).relative_to(folder).as_posix() for name in files if has_image_ending(name)]
    if errors:
        where, why = errors[0].filename, errors[0].strerror
        raise DPMError(f"folder '{shown(where)}' cannot be read: {why}") from errors[0]
    if not found:
        raise DPMError(f"there is no image in '{shown(folder)}'; looked for endings such as .jpg, .png, .tif")
    return sorted(found)


def _stamp(path: Path) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:  # a broken link; reading it will say so
        return (-1,)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _is_same(known: Stamp | None, stamp: Stamp | None) -> bool:
    """Whether ``known``, which may be of an older index and shorter, is of the file of ``stamp``."""
    return known is not None and stamp is not None and known == stamp[: len(known)]


def _embed(stamps: dict[str, Stamp], extractor: DPMExtractor, root: Path, folder: Path, model: dict) -> list[str]:
    """Embed and store the images of these names; returns a line for each unreadable one."""
    names, unreadable, size = list(stamps), [], extractor.batch_size
    progress = Progress(len(names), "images", lambda text: print(f"   embedded: {text}", flush=True))

    def prepared(name: str) -> torch.Tensor | DPMError:
        try:
            return extractor.prepare(root / name)
        except DPMError as error:
            return error

    first = next_number(folder, "batch")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
        for number, start in enumerate(range(0, len(names), size), start=first):
            batch = names[start : start + size]
            read = dict(zip(batch, readers.map(prepared, batch)))
            unreadable += [str(image) for image in read.values() if isinstance(image, DPMError)]
            images = {name: image for name, image in read.items() if isinstance(image, torch.Tensor)}
            if images:
                found = extractor(list(images.values()))
                embedding = found.embedding  # (b, D)
                masks = extractor.model.part_masks(found.mask) if model.get("parts") else None  # (b, K)
                if not embedding.isfinite().all():
                    raise DPMError("the model's embedding of an image is not finite; was it trained to the end?")
                if not (folder / "index.json").exists():
                    write_list(folder, root, model, None, {})
                add_batch(folder, number, {name: stamps[name] for name in images}, embedding, masks)
            progress.at(start + len(batch))
    return unreadable
