"""A search's answers as one self-contained HTML page to leaf through."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image

from dpm_plugin.apps.image_index.searching import Answer, Match
from dpm_plugin.apps.image_index.store import Index
from dpm_plugin.apps.query_page import Article, Panel, Tile, page, parts_panel
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.images import read_image
from dpm_plugin.utils.text import shown

SIZE = 144, 192  # largest width and height of an image in pixels
TITLES = {"mask on": "With the query's mask", "mask off": "Without mask"}


def answers_page(answers: Sequence[Answer], index: Index) -> str:
    """The text of the page, for the answers of a search in ``index``."""
    intro = (
        f"{len(answers)} queries in {len(index.paths):,} images of {shown(index.root.name)}, best first, with the "
        f"cosine similarity of features of the model '{index.model['name']}'. "
    )
    if any("mask on" in answer.lists for answer in answers):
        intro += (
            "With the mask, an image's features count by the channels that the query's mask trusts; (was 5) "
            "is its rank without it. "
        )
    thumbnail = lru_cache(maxsize=256)(_thumbnail)  # the lists of a query, and of like queries, share most images

    def ranked(kind: str, matches: Sequence[Match]) -> Panel:
        tile = lambda each: Tile(thumbnail(each.path), f"rank {each.rank}", _caption(kind, each))
        return Panel("list", TITLES[kind], list(map(tile, matches)))

    def article(number: int, answer: Answer) -> Article:
        name = shown(answer.path.name)
        image = thumbnail(answer.path)
        panels = [Panel("query", "Query", [Tile(image, name)])]
        if answer.parts:
            panels.append(parts_panel(image, answer.parts))
        facts = [] if answer.hidden is None else [f"{answer.hidden:.0%} hidden"]
        return Article(number, name, facts, panels, [ranked(*each) for each in answer.lists.items()])

    articles = (article(*each) for each in enumerate(answers, start=1))
    return page(articles, f"Search in {shown(index.root.name)}", intro, beside=True)


def _caption(kind: str, match: Match) -> str:
    was = f" (was {match.other_rank})" if kind == "mask on" and match.other_rank != match.rank else ""
    hidden = "" if match.hidden is None else f", {match.hidden:.0%} hidden"
    return f"{shown(match.name)}\n{match.score:.3f}{was}{hidden}"


def _thumbnail(path: Path) -> Image.Image:
    """The image within SIZE; a grey one where the file has gone or changed since it was indexed."""
    try:
        image = read_image(path, upright=True)
    except DPMError:
        return Image.new("RGB", SIZE, "grey")
    image.thumbnail(SIZE, Image.Resampling.LANCZOS)
    return image
