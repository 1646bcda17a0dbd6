"""One query as a PNG."""
from matplotlib.figure import Figure

from dpm_plugin.visualize.pictures import overlay_attention, overlay_drivers
from dpm_plugin.visualize.words import (
    OUTCOMES, channel_title, drivers_note, facts, file_name, head_title, match_title, ranking_title,
)

__all__ = ["draw_query"]

GREEN, RED = "#1a7f37", "#cf222e"
TILE = 1.35  # inches


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
    columns = max(len(tiles) for _, tiles in rows)
    aspect = picture.height / picture.width
    figure = Figure(figsize=(TILE * columns + 0.3, (TILE * aspect + 0.75) * len(rows) + 0.3))
    parts = figure.subfigures(len(rows), squeeze=False)[:, 0]
    for part, (title, tiles) in zip(parts, rows):
        # A file name with two dollar signs is no formula, and no font has every letter.
        part.suptitle(_ascii(title), x=0.01, ha="left", fontsize=9, fontweight="bold", parse_math=False)
        axes = part.subplots(1, columns, squeeze=False)[0]
        part.subplots_adjust(left=0.01, right=0.99, top=0.78, bottom=0.02, wspace=0.08)
        for axis in axes:
            axis.set_axis_off()
        for axis, tile in zip(axes, tiles):
            _draw_tile(axis, *tile)
    return figure


def _rows(view, picture, gallery, topk, drivers):
    """(title, [(picture, caption, right or None), ...]) of every row."""
    known = facts(view) + ([OUTCOMES[view.outcome]] if view.outcome else [])
    yield f"Query {file_name(view.path)}: " + ", ".join(known), [(picture, "", None)]
    if view.channels:
        yield f"The mask's highest channels. {drivers_note(drivers)}", [
            (overlay_drivers(picture, channel.drivers), channel_title(channel).replace(", ", "\n"), None)
            for channel in view.channels]
    yield f"Class-token attention of the last block (an even one: {1 / view.patches:.1%} a patch)", [
        (overlay_attention(picture, values), head_title(number, view), None)
        for number, values in enumerate(view.attention)]
    for side in (view.off, view.on):
        if side is not None:
            yield ranking_title(side is view.on, view.on is not None), [
                (gallery(position)[1], f"{index + 1}  {match_title(view, side, index)}", bool(side.right[index]))
                for index, position in enumerate(side.order[:topk])]


def _draw_tile(axis, picture, caption, right):
    axis.imshow(picture)
    axis.set_title(caption, fontsize=7, pad=3, color="black" if right is None else GREEN if right else RED)
    if right is not None:
        axis.set_axis_on()
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set(color=GREEN if right else RED, linewidth=2.5, linestyle="-" if right else "--")


def _ascii(text):
    return "".join(letter if letter in "\N{RIGHTWARDS ARROW}" or letter.isascii() else
                   letter.encode("ascii", "backslashreplace").decode() for letter in text)
