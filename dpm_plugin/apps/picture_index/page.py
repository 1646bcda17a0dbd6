"""A search's answers as one self-contained HTML page to leaf through."""

from functools import lru_cache
from html import escape

from PIL import Image

from dpm_plugin.apps.picture_index.reading import read_picture
from dpm_plugin.apps.visualize.page import page, panel, tile
from dpm_plugin.apps.visualize.pictures import data_uri
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import shown

SIZE = 144, 192  # largest width and height of a picture in pixels
TITLES = {"mask on": "With the query's mask", "mask off": "Without mask"}


def answers_page(answers, index):
    """The text of the page.

    Args:
        answers: of :func:`dpm_plugin.apps.picture_index.querying.search`.
        index: the :class:`~dpm_plugin.apps.picture_index.store.Index` that was searched.
    """

    @lru_cache(maxsize=1024)  # the lists of a query, and of like queries, share most of their pictures
    def source(path):
        return data_uri(_thumbnail(path))

    sections = [_section(number, answer, source) for number, answer in enumerate(answers, start=1)]
    title = f"Search in {shown(index.root.name)}"
    intro = (
        f"{len(answers)} queries in {len(index.paths):,} pictures of {shown(index.root)}, best first, with the "
        f"cosine similarity of features of the model '{index.model['name']}'. "
    )
    if any(answer.on is not None for answer in answers):
        intro += (
            "With the mask, a picture's features count by the channels that the query's mask trusts; (was 5) "
            "is its rank without it. "
        )
    return page(sections, [None] * len(answers), title, intro, [])


def _section(number, answer, source):
    name = shown(answer.path.name)
    query = panel("query", "Query", [tile(_thumbnail(answer.path), name)])
    lists = "".join(_list(name, matches, source) for name, matches in answer.lists)
    known = "" if answer.hidden is None else f'<ul class="facts"><li>{answer.hidden:.0%} hidden</li></ul>\n'
    return (
        f'<article id="q{number}">\n<h2>Query {number} <span class="file">{escape(name)}</span></h2>\n{known}'
        f'<div class="panels">{query}</div>\n<div class="lists beside">{lists}</div>\n</article>\n'
    )


def _list(kind, matches, source):
    items = "".join(
        f'<li><figure><img src="{source(match.path)}" title="{escape(shown(match.name))}" '
        f'alt="rank {match.rank}"><figcaption>{_caption(kind, match)}</figcaption></figure></li>'
        for match in matches
    )
    return f'<section class="list"><h3>{TITLES[kind]}</h3><ol class="any">{items}</ol></section>\n'


def _caption(kind, match):
    text = f"{match.score:.3f}"
    if kind == "mask on" and match.other_rank != match.rank:
        text += f" (was {match.other_rank})"
    return text + ("" if match.hidden is None else f", {match.hidden:.0%} hidden")


def _thumbnail(path):
    """The picture within SIZE; a grey one where the file has gone or changed since it was indexed."""
    try:
        picture = read_picture(path)
    except DPMError:
        return Image.new("RGB", SIZE, "grey")
    picture.thumbnail(SIZE, Image.Resampling.LANCZOS)
    return picture
