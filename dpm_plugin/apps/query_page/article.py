"""What is shown of one query, however it is drawn."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

#: What the query's mask did to its average precision, and the words for it.
OUTCOMES = {"helped": "mask helped", "hurt": "mask hurt", "same": "same with the mask"}


class Tile(NamedTuple):
    """An image with a caption.

    Attributes:
        image: RGB.
        alt: what the image shows, in words.
        caption: may have two lines. Default: none.
        name: of the image's file, for those who point at it. Default: none.
        right: whether a gallery image shows the query's identity. Default: None, not known.
    """

    image: Image.Image
    alt: str
    caption: str = ""
    name: str = ""
    right: bool | None = None


class Panel(NamedTuple):
    """A titled row of tiles.

    Attributes:
        kind: "query", "maps" or "list", whose tiles are numbered from 1.
        title: of the row.
        tiles: from left to right.
        note: a sentence under the title. Default: none.
    """

    kind: str
    title: str
    tiles: Sequence[Tile]
    note: str = ""


class Article(NamedTuple):
    """Everything that is shown of a query; all texts are plain and may hold any letter.

    Attributes:
        number: of the query, from 1.
        name: of its file.
        facts: short phrases.
        panels: the query's own first, with a single tile.
        lists: ranked galleries.
        outcome: a key of ``OUTCOMES``, or None where there is none to tell.
    """

    number: int
    name: str
    facts: Sequence[str]
    panels: Sequence[Panel]
    lists: Sequence[Panel]
    outcome: str | None = None
