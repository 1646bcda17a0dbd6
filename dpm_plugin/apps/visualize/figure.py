"""One query as a PNG."""

from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from dpm_plugin.apps.visualize.pictures import overlay_attention, overlay_drivers
from dpm_plugin.apps.visualize.words import (
    OUTCOMES,
    attention_note,
    channel_title,
    drivers_note,
    facts,
    file_name,
    head_title,
    match_title,
    ranking_note,
    ranking_title,
)

GREEN, RED, GREY = "#1a7f37", "#cf222e", "#59636e"
# Pixels: between tiles; of a row's title and note; of a caption; the least width of a tile and of the whole.
GAP, TITLE, CAPTION, TILE, WIDTH = 12, 40, 34, 110, 900
DPI = 100
LONGEST = 100  # letters of a file name


class _Tile(NamedTuple):
    picture: Image.Image
    caption: str
    right: bool | None = None  # of a match


class _Row(NamedTuple):
    title: str
    note: str
    tiles: list
    beside: str = ""  # text to the right of the tiles


def draw_query(view, picture, gallery, topk, drivers):
    """Draw the query, its mask's channels, its attention and its ranked galleries.

    Args:
        view: QueryView.
        picture: PIL image of the query.
        gallery: function from a position in the gallery set to (path, PIL image).
        topk: gallery images in a row.
        drivers: the method behind ``Channel.drivers``.

    Returns:
        matplotlib ``Figure``; save it with ``savefig``.
    """
    rows = list(_rows(view, picture, gallery, topk, drivers))
    step = max(picture.width, TILE) + GAP
    row_height = TITLE + CAPTION + picture.height + GAP
    width = max(WIDTH, step * max(len(row.tiles) for row in rows) + GAP)
    height = row_height * len(rows) + GAP
    # One canvas and one axes in its pixels: an axes for every tile takes seconds a figure.
    canvas = Image.new("RGB", (width, height), "white")
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for number, row in enumerate(rows):
        top = number * row_height + GAP
        _text(axes, GAP, top, row.title, fontsize=10, fontweight="bold")
        _text(axes, GAP, top + TITLE // 2, row.note, fontsize=8, color=GREY)
        for index, tile in enumerate(row.tiles):
            corner = GAP + index * step, top + TITLE + CAPTION
            canvas.paste(tile.picture, corner)
            _annotate(axes, tile, corner)
        right = GAP + len(row.tiles) * step
        _text(axes, right, top + TITLE + CAPTION, row.beside, fontsize=9, linespacing=1.8)
    axes.imshow(canvas, extent=(0, width, height, 0), interpolation="nearest", aspect="auto")
    return figure


def _rows(view, picture, gallery, topk, drivers):
    known = facts(view) + ([OUTCOMES[view.outcome]] if view.outcome else [])
    name = file_name(view.path)
    name = name if len(name) <= LONGEST else name[:LONGEST] + "..."
    yield _Row(f"Query {view.position + 1}: {name}", "", [_Tile(picture, "")], "\n".join(known))
    if view.channels:
        yield _Row(
            "The mask's highest channels",
            drivers_note(drivers),
            [
                _Tile(overlay_drivers(picture, channel.drivers), channel_title(channel).replace(": ", "\n"))
                for channel in view.channels
            ],
        )
    yield _Row(
        "Class-token attention of the last block",
        attention_note(view),
        [
            _Tile(overlay_attention(picture, values), head_title(number, view))
            for number, values in enumerate(view.attention)
        ],
    )
    for side in (view.off, view.on):
        if side is not None:
            yield _Row(
                ranking_title(side is view.on, view.on is not None),
                ranking_note(),
                [_match_tile(view, side, index, gallery) for index in range(min(topk, len(side.order)))],
            )


def _match_tile(view, side, index, gallery):
    caption = f"{index + 1}  {match_title(view, side, index)}".replace(" (", "\n(")
    return _Tile(gallery(side.order[index])[1], caption, bool(side.right[index]))


def _annotate(axes, tile, corner):
    colour = "black" if tile.right is None else GREEN if tile.right else RED
    _text(axes, corner[0], corner[1] - 5, tile.caption, va="bottom", fontsize=7.5, color=colour)
    if tile.right is not None:
        axes.add_patch(
            Rectangle(
                corner,
                *tile.picture.size,
                fill=False,
                edgecolor=colour,
                linewidth=3,
                linestyle="-" if tile.right else (0, (3, 1.5)),
            )
        )


def _text(axes, x, y, text, va="top", **style):
    # A file name with two dollar signs is no formula, and the font does not have every letter.
    axes.text(x, y, _plain(text), va=va, parse_math=False, **style)


def _plain(text):
    kept = "\N{CHECK MARK}\N{BALLOT X}"
    return "".join(
        letter if letter in kept or letter.isascii() else letter.encode("ascii", "backslashreplace").decode()
        for letter in text
    )
