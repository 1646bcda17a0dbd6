"""Rank an index's pictures for query pictures, with and without the query's mask."""

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dpm_plugin.apps.picture_index.reading import read_picture
from dpm_plugin.evaluation.search import Gallery, ranks, topk
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import shown


class Match(NamedTuple):
    """One picture of a ranked list.

    Attributes:
        rank: from 1.
        name: path in the index, relative to its folder of pictures.
        path: where it lies.
        score: cosine similarity, in [-1, 1].
        other_rank: its rank in the other list; None for a model without mask.
        hidden: occluded share of the person, 0 to 1; None where it is not known.
    """

    rank: int
    name: str
    path: Path
    score: float
    other_rank: int | None
    hidden: float | None


class Answer(NamedTuple):
    """One query: its path, its occluded share or None, and ranked lists of Match.

    ``on`` is with the query's mask on every picture of the index (None without mask branch), ``off`` without.
    """

    path: Path
    hidden: float | None
    on: list | None
    off: list

    @property
    def lists(self):
        """[(name, list of Match)] of the lists there are, the one with the mask first."""
        named = [("mask on", self.on), ("mask off", self.off)]
        return [(name, matches) for name, matches in named if matches is not None]


def search(queries, index, extractor, top=20):
    """Rank the index for each query, reading it chunk by chunk: no distance matrix is built.

    Args:
        queries: paths of pictures.
        index: :class:`dpm_plugin.apps.picture_index.store.Index` made by the model of ``extractor``.
        extractor: :class:`dpm_plugin.DPMExtractor`.
        top: length of a ranked list. Default: 20.

    Returns:
        (list of Answer, lines on the queries that could not be read). Equal scores keep the index's order.

    Raises:
        DPMError: no query can be read, the index is empty, or ``top`` is below 1.
    """
    if top < 1:
        raise DPMError(f"the number of results must be at least 1, got {top}")
    if not index.paths:
        raise DPMError(f"index '{shown(index.folder)}' holds no picture yet; run tools/search.py index again")
    paths, images, unreadable = [], [], []
    for path in map(Path, queries):
        try:
            images.append(extractor.prepare(read_picture(path)))
            paths.append(path)
        except DPMError as error:
            unreadable.append(str(error))
    if not paths:
        raise DPMError(f"no query can be read; the first: {unreadable[0]}")
    found = extractor(images)
    off = _ranked(index, found.embedding, None, [] if found.mask is None else [found.mask], top)
    on = [None] * len(paths) if found.mask is None else _ranked(index, found.embedding, found.mask, [None], top)
    return [Answer(path, hidden_share(path), *lists) for path, *lists in zip(paths, on, off)], unreadable


def _ranked(index, embedding, mask, other, top):
    """For each query its list of Match under ``mask``.

    ``other`` is empty, or holds the mask (or None) of the other list, in which the same pictures have other ranks.
    """
    gallery = Gallery(index.embedding)
    distances, rows = topk(embedding, gallery, mask, min(top, len(gallery)))  # (Q, top)
    other_ranks = [ranks(embedding, gallery, other_mask, rows) for other_mask in other]  # one or none of (Q, top)

    def match(query, place):
        name = index.paths[rows[query, place]]
        return Match(
            place + 1,
            name,
            index.root / name,
            1 - float(distances[query, place]),
            int(other_ranks[0][query, place]) if other_ranks else None,
            hidden_share(index.root / name),
        )

    return [[match(query, place) for place in range(rows.shape[1])] for query in range(len(rows))]


def hidden_share(path):
    """The occluded share of the person in a picture, as a ``visibility.json`` of the synthetic benchmark has it.

    That lies in the picture's folder or the one above, and maps relative paths to ``{"hidden": share}``.
    None where there is none.
    """
    path = Path(path).absolute()
    for folder in list(path.parents)[:2]:
        record = _visibility(folder).get(path.relative_to(folder).as_posix())
        if isinstance(record, dict) and isinstance(record.get("hidden"), (int, float)):
            return float(record["hidden"])
    return None


@lru_cache(maxsize=256)
def _visibility(folder):
    try:
        records = json.loads((folder / "visibility.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return records if isinstance(records, dict) else {}
