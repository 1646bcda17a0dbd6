"""One query's article as an image."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from dpm_plugin.apps.query_page import OUTCOMES, Article, Panel
from dpm_plugin.utils.text import shown

COLOURS = {True: "#1a7f37", False: "#cf222e", None: "black"}  # of a right match, a wrong one, and the rest
GREY = "#59636e"
# Pixels: between tiles; of a row's title and note; of a caption; the least width of a tile and of the whole.
GAP, TITLE, CAPTION, TILE, WIDTH = 12, 40, 34, 110, 900
LONGEST = 100  # letters of a file name
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # with the marks of right and wrong, on every system


def draw_article(article: Article) -> Image.Image:
    """Draw all panels and lists of an article, one below the other; what is of the query itself stands in one row."""
    own = [panel for panel in article.panels if panel.kind == "query"]
    rows = [_beside(own), *(panel for panel in article.panels if panel.kind != "query"), *article.lists]
    query = rows[0].tiles[0].image
    step, height = max(query.width, TILE) + GAP, TITLE + CAPTION + query.height + GAP
    width = max(WIDTH, step * max(len(row.tiles) for row in rows) + GAP)
    canvas = Image.new("RGB", (width, height * len(rows) + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    fonts = {14: "DejaVuSans-Bold.ttf", 12: "DejaVuSans.ttf", 10: "DejaVuSans.ttf"}
    bold, normal, small = (ImageFont.truetype(FONTS / name, size) for size, name in fonts.items())
    facts = [*article.facts, *([OUTCOMES[article.outcome]] if article.outcome else [])]
    pen.text(
        (GAP + step * len(rows[0].tiles), GAP + TITLE + CAPTION),
        "\n".join(map(shown, facts)),
        "black",
        normal,
        spacing=8,
    )
    for number, row in enumerate(rows):
        top = number * height + GAP
        title = row.title if number else f"Query {article.number}: {shown(article.name)[:LONGEST]}"
        pen.text((GAP, top), title, "black", bold)
        pen.text((GAP, top + TITLE // 2), row.note, GREY, small)
        for rank, tile in enumerate(row.tiles, start=1):
            left, y = GAP + (rank - 1) * step, top + TITLE + CAPTION
            canvas.paste(tile.image, (left, y))
            caption = f"{rank}  {tile.caption}" if row.kind == "list" else tile.caption
            pen.text((left, y - 5), caption, COLOURS[tile.right], small, anchor="ld")
            if tile.right is not None:  # the frame of a right match is the thicker one, too
                box = (left - 2, y - 2, left + tile.image.width + 1, y + tile.image.height + 1)
                pen.rectangle(box, outline=COLOURS[tile.right], width=5 if tile.right else 2)
    return canvas


def _beside(panels: Sequence[Panel]) -> Panel:
    """Panels of one tile each as one, where their titles stand above the tiles; the first needs none."""
    first, *others = panels
    tiles = [tile._replace(caption=f"{panel.title}:\n{tile.caption}") for panel in others for tile in panel.tiles]
    return first._replace(tiles=[*first.tiles, *tiles], note=" ".join(panel.note for panel in panels if panel.note))
