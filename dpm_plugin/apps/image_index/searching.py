"""Rank an index's images for query images, with and without the query's mask."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from dpm_plugin.apps.image_index.store import Index
from dpm_plugin.evaluation.search import Gallery, ranks, topk
from dpm_plugin.inference.extractor import DPMExtractor
from dpm_plugin.method.part_features import part_weights
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import read_json
from dpm_plugin.utils.text import shown


class Match(NamedTuple):
    """One image of a ranked list."""

    rank: int  # from 1
    name: str  # path in the index, relative to its folder of images
    path: Path
    score: float  # cosine similarity, in [-1, 1]
    other_rank: int | None  # its rank in the other list; None for a model without mask
    hidden: float | None  # occluded share of the person, 0 to 1; None where it is not known


class Answer(NamedTuple):
    """One query with its ranked lists."""

    path: Path
    hidden: float | None  # as in Match
    lists: dict[str, list[Match]]  # "mask on": the query's mask on every image, not without mask branch; "mask off"
    parts: tuple[float, ...] = ()  # how much each counts by the mask, from the top; 1 is its mean in the index


def search(
    queries: Sequence[str | Path], index: Index, extractor: DPMExtractor, top: int = 20
) -> tuple[list[Answer], list[str]]:
    """Rank the index for each query, reading it chunk by chunk: no distance matrix is built.

    Args:
        queries: paths of images.
        index: made by the model of ``extractor``.
        top: length of a ranked list. Default: 20.

    Returns:
        (answers, lines on the queries that could not be read). Equal scores keep the index's order.

    Raises:
        DPMError: no query can be read, the index is empty, or ``top`` is below 1.
    """
    if top < 1:
        raise DPMError(f"the number of results must be at least 1, got {top}")
    if not index.paths:
        raise DPMError(f"index '{shown(index.folder)}' holds no image yet; run dpm search index again")
    paths, images, unreadable = [], [], []
    for path in map(Path, queries):
        try:
            images.append(extractor.prepare(path))
            paths.append(path)
        except DPMError as error:
            unreadable.append(str(error))
    if not images:
        raise DPMError(f"no query can be read; the first: {unreadable[0]}")
    embedding, mask, _ = extractor(images)
    gallery, count = Gallery(index.embedding), min(top, len(index.paths))

    def ranked(own_mask: torch.Tensor | None, other_mask: torch.Tensor | None) -> list[list[Match]]:
        """A list for each query under ``own_mask``; with a mask branch, also the ranks under ``other_mask``."""
        distances, rows = topk(embedding, gallery, own_mask, count)  # (Q, count)
        others = [[None] * count] * len(rows) if mask is None else ranks(embedding, gallery, other_mask, rows).tolist()
        lists = zip(rows.tolist(), distances.tolist(), others)
        return [[_match(index, *each) for each in zip(range(1, count + 1), *columns)] for columns in lists]

    lists = {} if mask is None else {"mask on": ranked(mask, None)}
    lists["mask off"] = ranked(None, mask)
    found = [dict(zip(lists, of_query)) for of_query in zip(*lists.values())]
    parts: list[list[float]] = [[]] * len(paths)
    own = extractor.model.part_masks(mask)  # (Q, K)
    if own is not None and index.part_masks is not None:
        parts = part_weights(own, index.part_masks).tolist()
    answers = zip(paths, found, parts, strict=True)
    return [Answer(path, hidden_share(path), lists, tuple(weights)) for path, lists, weights in answers], unreadable


def _match(index: Index, rank: int, row: int, distance: float, other_rank: int | None) -> Match:
    path = index.root / index.paths[row]
    return Match(rank, index.paths[row], path, 1 - distance, other_rank, hidden_share(path))


def hidden_share(path: Path) -> float | None:
    """The occluded share of the person in an image, as a ``visibility.json`` of the synthetic benchmark has it.

    That lies in the image's folder or the one above, and maps relative paths to ``{"hidden": share}``.
    None where there is none.
    """
    path = path.absolute()
    for folder in list(path.parents)[:2]:
        record = _visibility(folder).get(path.relative_to(folder).as_posix())
        if isinstance(record, dict) and isinstance(record.get("hidden"), (int, float)):
            return float(record["hidden"])
    return None


@lru_cache(maxsize=256)
def _visibility(folder: Path) -> dict:
    try:
        records = read_json(folder / "visibility.json")
    except (OSError, ValueError):
        return {}
    return records if isinstance(records, dict) else {}
