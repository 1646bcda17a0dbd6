"""An index on disk: the embeddings of a folder's pictures and the list of their paths.

    index.json                 the model, the folder of pictures, the list, the name of the features file
    features-<n>.safetensors   embedding (N, D) float32, rows in the order of the list
    batch-<n>.safetensors      a finished batch that is not merged yet, with its list in its header

Every file is written beside its place and then renamed; index.json, which names the features file, comes
last. So a process that ends at any moment leaves an index that opens, with every finished batch.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import write_file
from dpm_plugin.utils.text import shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


FOLDER = ".dpm_index"  # in the folder of pictures, where no other place is named
FORMAT = 1


class Index(NamedTuple):
    """What is in an index, batches that are not merged yet included.

    Attributes:
        folder: of the index.
        root: folder of the pictures.
        model: see :func:`dpm_plugin.apps.picture_index.identity.describe`.
        paths: of N pictures, relative to ``root``, with forward slashes, sorted.
        stamps: (size in bytes, time of change in ns) of each when it was embedded.
        embedding: (N, D) float32; memory-mapped, unless there are batches that are not merged yet.
        features: name of the features file; None before the first merge.
        batches: paths of the batch files.
    """

    folder: Path
    root: Path
    model: dict
    paths: list
    stamps: list
    embedding: torch.Tensor
    features: str
    batches: list


def find_index(place):
    """The index at ``place``: that folder, or the default place in a folder of pictures. None where none is."""
    for folder in (Path(place), Path(place) / FOLDER):
        if (folder / "index.json").is_file():
            return folder
    return None


def begin(folder, root, model):
    """Make an index without pictures."""
    _write_list(folder, root, model, None, [], [])


def add_batch(folder, paths, stamps, embedding):
    """Write a finished batch: paths, stamps and embedding (b, D) as in :class:`Index`."""
    name = f"batch-{_last_number(folder, 'batch') + 1:08d}.safetensors"
    _write_features(Path(folder) / name, embedding, {"pictures": json.dumps(list(zip(paths, stamps)))})


def read_index(folder):
    """Read an index.

    Raises:
        DPMError: missing or damaged; says what to do.
    """
    folder = Path(folder)
    if not (folder / "index.json").is_file():
        raise DPMError(f"there is no index in '{shown(folder)}'; make one with tools/search.py index")
    try:
        content = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DPMError(
                f"index '{shown(folder)}' has format {content['format']}, this version reads {FORMAT}; "
                "delete the folder and index again"
            )
        pictures = [tuple(each) for each in content["pictures"]]
        blocks = []
        if content["features"] is not None:
            blocks.append(_read_features(folder / Path(content["features"]).name)[0])
        batches = _files(folder, "batch")
        for path in batches:
            embedding, metadata = _read_features(path)
            pictures += [tuple(each) for each in json.loads(metadata["pictures"])]
            blocks.append(embedding)
        embedding = _joined(blocks, content["model"]["feature_dim"])
        if len(embedding) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures with {len(embedding)} embeddings")
        place = {path: row for row, (path, _) in enumerate(pictures)}  # of a changed picture the last row counts
        paths = sorted(place)
        rows = [place[path] for path in paths]
        stamps = [tuple(pictures[row][1]) for row in rows]
        if rows != list(range(len(pictures))):  # else it stays memory-mapped
            embedding = embedding[rows]
        root = (folder.resolve() / content["root"]).resolve()
        return Index(folder, root, content["model"], paths, stamps, embedding, content["features"], batches)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if isinstance(error, DPMError):
            raise
        raise DPMError(
            f"index '{shown(folder)}' is damaged ({type(error).__name__}: {error}); delete the folder and index again"
        ) from error


def merge(index, keep, root):
    """Put all batches into one features file; only pictures at the places ``keep``, ascending, stay.

    ``root`` is where the pictures are now.
    """
    features = f"features-{_last_number(index.folder, 'features') + 1:08d}.safetensors"
    _write_features(index.folder / features, index.embedding[keep], {})
    _write_list(
        index.folder,
        root,
        index.model,
        features,
        [index.paths[row] for row in keep],
        [index.stamps[row] for row in keep],
    )
    for path in index.batches:
        path.unlink(missing_ok=True)
    for path in _files(index.folder, "features"):
        if path.name != features:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder):
    """Hold the index's lock in the block; without a file system or system that has locks, nothing.

    A folder that is made for it and still holds no index at the end is removed.

    Raises:
        DPMError: another process holds it, or the folder cannot be made.
    """
    folder = Path(folder)
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / "lock", "w")
    except OSError as error:
        raise DPMError(f"index folder '{shown(folder)}' cannot be written: {error.strerror}") from error
    with handle:
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DPMError(f"another process is writing index '{shown(folder)}'; wait for it") from error
        except OSError:
            pass  # no locks on this file system
        for path in folder.glob(".*.tmp"):  # of a process that was killed
            path.unlink(missing_ok=True)
        try:
            yield
        finally:
            if not (folder / "index.json").exists():
                (folder / "lock").unlink(missing_ok=True)
                if made:
                    folder.rmdir()


def _files(folder, kind):
    return sorted(Path(folder).glob(f"{kind}-{'[0-9]' * 8}.safetensors"))


def _last_number(folder, kind):
    return max((int(path.stem.partition("-")[2]) for path in _files(folder, kind)), default=0)


def _write_list(folder, root, model, features, paths, stamps):
    folder, root = Path(folder).resolve(), Path(root).resolve()
    inside = folder.is_relative_to(root)  # then pictures and index may move together
    content = {
        "format": FORMAT,
        "root": os.path.relpath(root, folder) if inside else str(root),
        "model": model,
        "features": features,
        "pictures": list(zip(paths, stamps)),
    }
    write_file(folder / "index.json", json.dumps(content, indent=0) + "\n")


def _write_features(path, embedding, metadata):
    write_file(path, save({"embedding": embedding.contiguous()}, metadata))


def _read_features(path):
    with safe_open(path, framework="pt") as file:  # which maps the file
        return file.get_tensor("embedding"), file.metadata() or {}


def _joined(blocks, dim):
    """Blocks of rows as one (N, dim) tensor; a single one as it is."""
    wrong = next((tuple(block.shape) for block in blocks if block.shape[1:] != (dim,)), None)
    if wrong is not None:
        raise ValueError(f"embeddings of shape {wrong}, expected {dim} columns")
    if len(blocks) == 1:
        return blocks[0]
    return torch.cat([torch.zeros(0, dim), *blocks])
