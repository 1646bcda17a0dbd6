"""An index on disk: the embeddings of a folder's images and the list of their paths.

    index.json                 the model, the folder of images, the list, the name of the features file
    features-<n>.safetensors   embedding (N, D) float32, rows in the order of the list; for a model whose mask has
                               K parts, beside it part_masks (N, K) float32
    batch-<n>.safetensors      a finished batch that is not merged yet, with its list in its header

Every file is written beside its place and then renamed; index.json, which names the features file, comes
last. So a process that ends at any moment leaves an index that opens, with every finished batch.

Folders in index.json are relative to the index. Nothing in an index is trusted: it may come from elsewhere.
"""

import errno
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import locked, read_json, remove_leftovers, write_file
from dpm_plugin.utils.text import first_line, short, shown
from dpm_plugin.weights.published import PREFIX

FOLDER = ".dpm_index"  # in the folder of images, where no other place is named
FORMAT = 1
TRIES = 20  # at an index that another process merges meanwhile; 2 s in all

# Size in bytes, then in ns the times of the content's and of the file's last change, then its number (inode), which
# tell files apart that were swapped; indexes of before hold the first two.
Stamp = tuple[int, ...]


class Index(NamedTuple):
    """What is in an index, batches that are not merged yet included."""

    folder: Path
    root: Path  # folder of the images
    model: dict  # see :func:`dpm_plugin.apps.image_index.fingerprint.describe`
    paths: list[str]  # of N images, relative to ``root``, with forward slashes, sorted
    stamps: list[Stamp]  # of each image when it was embedded
    embedding: torch.Tensor  # (N, D) float32; memory-mapped, unless there are batches that are not merged yet
    batches: list[Path]
    part_masks: torch.Tensor | None = None  # (N, K) float32, mean mask of each part; None for a model without parts


def read_index(place: str | Path) -> Index:
    """Read the index at ``place``: that folder, or the default one in a folder of images.

    Another process may be writing it: what is read was the index at one moment.

    Raises:
        DPMError: missing, incomplete or damaged, or it names files outside of its folder of images; says what to do.
    """
    folder = next((each for each in (Path(place), Path(place) / FOLDER) if (each / "index.json").is_file()), None)
    if folder is None:
        raise DPMError(f"there is no index in '{shown(place)}'; make one with dpm search index")
    for tried in range(TRIES):
        time.sleep(0.01 * tried)
        before, error = _stamps(folder), None
        try:
            index = _read(folder)
        except (DPMError, FileNotFoundError) as caught:
            error = caught
        after = _stamps(folder)
        if error is None and before[0] == after[0]:  # else it was merged meanwhile
            return index
        if isinstance(error, DPMError) and before == after:  # else a file went, and may be there again by now
            raise error
    if error is None or isinstance(error, DPMError):
        raise DPMError(f"another process keeps writing index '{shown(folder)}'; wait for it")
    missing = f"'{shown(error.filename)}' is missing; put it back, or index into another folder"
    raise DPMError(f"index '{shown(folder)}' is incomplete: {missing}") from error


def _stamps(folder: Path) -> list[tuple[int, ...]]:
    """What tells one state of ``index.json``, the first, and of the batches from another."""
    stamps = [_stamp(folder / "index.json")]
    for path in _files(folder, "batch"):
        with suppress(FileNotFoundError):
            stamps.append(_stamp(path))
    return stamps


def _stamp(path: Path) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(folder: Path) -> Index:
    again = "delete the folder and index again"
    try:
        content = read_json(folder / "index.json")
        if content["format"] != FORMAT:
            message = f"index '{shown(folder)}' has format {content['format']}, this version reads {FORMAT}; {again}"
            raise DPMError(message)
        _check(content["model"])
        entries, blocks, masks, batches = content["pictures"], [], [], _files(folder, "batch")
        parts = content["model"].get("parts", 0)
        merged = [] if content["features"] is None else [folder / Path(content["features"]).name]
        for path in merged + batches:
            try:
                if path.exists() and not path.is_file():
                    raise ValueError(f"{path.name} is no regular file")
                with safe_open(path, framework="pt") as file:  # which maps the file
                    blocks.append(file.get_tensor("embedding"))
                    if parts:
                        masks.append(file.get_tensor("part_masks"))
                    entries += json.loads((file.metadata() or {}).get("pictures", "[]"))
            except (OSError, RuntimeError, SafetensorError) as error:  # each may mean that it has gone
                if path.exists():
                    raise
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        shape = len(entries), content["model"]["feature_dim"]
        embedding = torch.cat(blocks) if len(blocks) > 1 else blocks[0] if blocks else torch.zeros(0, shape[1])
        if embedding.shape != shape:
            raise ValueError(f"embeddings of shape {tuple(embedding.shape)}, expected {shape}")
        part_masks = torch.cat([torch.zeros(0, parts), *masks]) if parts else None
        if part_masks is not None and not (len(part_masks) == len(entries) and part_masks.isfinite().all()):
            raise ValueError(f"masks of parts of shape {tuple(part_masks.shape)}, expected finite {len(entries)} rows")
        places = {path: row for row, (path, _) in enumerate(entries)}  # of a changed image the last row counts
        paths = sorted(places)
        if (outside := next((path for path in paths if not _is_inside(path)), None)) is not None:
            raise ValueError(f"its image {short(outside)} lies outside of its folder")
        rows = [places[path] for path in paths]
        stamps = [tuple(map(int, entries[row][1])) for row in rows]
        if rows != list(range(len(entries))):  # else it stays memory-mapped
            embedding = embedding[rows]
        if part_masks is not None:
            part_masks = part_masks[rows]
        model, here = content["model"], folder.resolve()
        for name in ("source", "config_file"):
            if model[name] is not None and not model[name].startswith(PREFIX):
                model[name] = os.path.normpath(here / model[name])
        return Index(folder, (here / content["root"]).resolve(), model, paths, stamps, embedding, batches, part_masks)
    except (DPMError, FileNotFoundError):
        raise
    except Exception as error:  # whatever a stranger's file leads to
        why = f"{type(error).__name__}: {first_line(error)}"
        raise DPMError(f"index '{shown(folder)}' is damaged ({why}); {again}") from error


def _check(model: dict) -> None:
    """Raise ValueError, TypeError or KeyError where this is no description of a model."""
    texts = model["fingerprint"], model["name"], model["source"] or "", model["config_file"] or ""
    if not all(isinstance(text, str) and "\0" not in text for text in texts) or int(model["feature_dim"]) < 0:
        raise ValueError(f"model {short(model)}")


def write_list(folder: Path, root: Path, model: dict, features: str | None, stamps: dict[str, Stamp]) -> None:
    """Write index.json: the name of the features file, None before the first merge, and the stamps by path."""
    folder = folder.resolve()
    places = {name: model[name] for name in ("source", "config_file")}
    own = {
        name: place and (place if place.startswith(PREFIX) else _relative(place, folder))
        for name, place in places.items()
    }
    content = {
        "format": FORMAT,
        "root": _relative(root.resolve(), folder),  # images and index may move together
        "model": {**model, **own},
        "features": features,
        "pictures": list(stamps.items()),
    }
    write_file(folder / "index.json", json.dumps(content, indent=0) + "\n")


def next_number(folder: Path, kind: str) -> int:
    """The number of the next file of a kind, "batch" or "features"."""
    return max((int(path.stem.partition("-")[2]) for path in _files(folder, kind)), default=0) + 1


def add_batch(
    folder: Path, number: int, stamps: dict[str, Stamp], embedding: torch.Tensor, part_masks: torch.Tensor | None = None
) -> None:
    """Write a finished batch, :func:`next_number` or a later one: stamps of b paths, their embedding (b, D).

    ``part_masks`` (b, K): as in :class:`Index`. Default: None.
    """
    metadata = {"pictures": json.dumps(list(stamps.items()))}
    write_file(folder / _name("batch", number), save(_tensors(embedding, part_masks), metadata))


def merge(index: Index, keep: Sequence[int], root: Path) -> None:
    """Put all batches into one features file; only images at the places ``keep``, ascending, stay.

    ``root`` is where the images are now.
    """
    old = index.batches + _files(index.folder, "features")
    features = _name("features", next_number(index.folder, "features"))
    masks = None if index.part_masks is None else index.part_masks[keep]
    write_file(index.folder / features, save(_tensors(index.embedding[keep], masks)))
    stamps = {index.paths[row]: index.stamps[row] for row in keep}
    write_list(index.folder, root, index.model, features, stamps)
    for path in old:
        path.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the index's lock in the block; a folder that is made for it and still holds no index then is removed.

    Raises:
        DPMError: another process holds it, or the folder cannot be made.
    """
    with ExitStack() as held:
        try:
            made = not folder.exists()
            held.enter_context(locked(folder / "lock", wait=False))
        except BlockingIOError as error:
            raise DPMError(f"another process is writing index '{shown(folder)}'; wait for it") from error
        except OSError as error:
            raise DPMError(f"index folder '{shown(folder)}' cannot be written: {error.strerror}") from error
        remove_leftovers(folder)
        try:
            yield
        finally:
            if not (folder / "index.json").exists():
                (folder / "lock").unlink(missing_ok=True)
                if made:
                    folder.rmdir()


def _tensors(embedding: torch.Tensor, part_masks: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What a file of features holds of its images."""
    tensors = {"embedding": embedding} if part_masks is None else {"embedding": embedding, "part_masks": part_masks}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}-{'[0-9]' * 8}.safetensors"))


def _name(kind: str, number: int) -> str:
    return f"{kind}-{number:08d}.safetensors"


def _is_inside(path: str) -> bool:
    pure = PurePath(path)
    return bool(pure.parts) and not pure.anchor and ".." not in pure.parts and "\0" not in path


def _relative(place: str | Path, folder: Path) -> str:
    try:
        return os.path.relpath(place, folder)
    except ValueError:  # on another drive of Windows
        return str(place)
