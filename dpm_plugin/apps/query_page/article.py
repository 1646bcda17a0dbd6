"""What is shown of one query, however it is drawn; all texts are plain and may hold any letter."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

#: What the query's mask did to its average precision, and the words for it.
OUTCOMES = {"helped": "mask helped", "hurt": "mask hurt", "same": "same with the mask"}


class Tile(NamedTuple):
    """An image with a caption."""

    image: Image.Image  # RGB
    alt: str  # what the image shows, in words
    caption: str = ""  # may have two lines
    name: str = ""  # of the image's file, for those who point at it
    right: bool | None = None  # whether a gallery image shows the query's identity; None: not known


class Panel(NamedTuple):
    """A titled row of tiles."""

    kind: str  # "query", "maps" or "list", whose tiles are numbered from 1
    title: str
    tiles: Sequence[Tile]
    note: str = ""  # a sentence under the title


class Article(NamedTuple):
    """Everything that is shown of a query."""

    number: int  # of the query, from 1
    name: str  # of its file
    facts: Sequence[str]  # short phrases
    panels: Sequence[Panel]  # the query's own first, with a single tile
    lists: Sequence[Panel]  # ranked galleries
    outcome: str | None = None  # a key of OUTCOMES; None where there is none to tell
