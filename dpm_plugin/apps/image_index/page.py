"""A search's answers as one self-contained HTML page to leaf through."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image

from dpm_plugin.apps.image_index.searching import Answer, Match
from dpm_plugin.apps.image_index.store import Index
from dpm_plugin.apps.query_page import Article, Panel, Tile, page
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.images import read_image
from dpm_plugin.utils.text import shown

SIZE = 144, 192  # largest width and height of an image in pixels
TITLES = {"mask on": "With the query's mask", "mask off": "Without mask"}


def answers_page(answers: Sequence[Answer], index: Index) -> str:
    """The text of the page, for the answers of a search in ``index``."""
    title = f"Search in {shown(index.root.name)}"
    intro = (
        f"{len(answers)} queries in {len(index.paths):,} images of {shown(index.root)}, best first, with the "
        f"cosine similarity of features of the model '{index.model['name']}'. "
    )
    if any(answer.on is not None for answer in answers):
        intro += (
            "With the mask, an image's features count by the channels that the query's mask trusts; (was 5) "
            "is its rank without it. "
        )
    thumbnail = lru_cache(maxsize=256)(_thumbnail)  # the lists of a query, and of like queries, share most images

    def tile(kind: str, match: Match) -> Tile:
        return Tile(thumbnail(match.path), f"rank {match.rank}", _caption(kind, match), shown(match.name))

    def article(number: int, answer: Answer) -> Article:
        name = shown(answer.path.name)
        query = Panel("query", "Query", [Tile(thumbnail(answer.path), name)])
        lists = [Panel("list", TITLES[kind], [tile(kind, each) for each in found]) for kind, found in answer.lists]
        facts = [] if answer.hidden is None else [f"{answer.hidden:.0%} hidden"]
        return Article(number, name, facts, [query], lists)

    return page((article(*each) for each in enumerate(answers, start=1)), title, intro, beside=True)


def _caption(kind: str, match: Match) -> str:
    text = f"{match.score:.3f}"
    if kind == "mask on" and match.other_rank != match.rank:
        text += f" (was {match.other_rank})"
    return text + ("" if match.hidden is None else f", {match.hidden:.0%} hidden")


def _thumbnail(path: Path) -> Image.Image:
    """The image within SIZE; a grey one where the file has gone or changed since it was indexed."""
    try:
        image = read_image(path, upright=True)
    except DPMError:
        return Image.new("RGB", SIZE, "grey")
    image.thumbnail(SIZE, Image.Resampling.LANCZOS)
    return image
