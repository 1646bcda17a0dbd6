"""How much each part of a query counts by its mask, as words and over its image."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dpm_plugin.apps.query_page.article import Panel, Tile

IGNORED = 0.12  # brightness, in grey, of a part that does not count at all


def percentages(weights: Sequence[float]) -> str:
    """The weights of K parts (1: as much as usual) in words, from the top: "112%, 98%, 40%"."""
    return ", ".join(f"{weight:.0%}" for weight in weights)


def parts_panel(image: Image.Image, weights: Sequence[float]) -> Panel:
    """The RGB image of a query, each of K equally high stripes as dark as it counts less than usual, and its share."""
    stripes = np.arange(image.height) * len(weights) // image.height  # (H,) of each row of pixels
    opacity = np.round(255 * np.clip(weights, 0, 1)).astype(np.uint8)[stripes]  # (H,)
    layer = Image.fromarray(opacity[:, None]).resize(image.size, Image.Resampling.NEAREST)
    dark = image.convert("L").point(lambda value: round(IGNORED * value)).convert("RGB")
    drawn = Image.composite(image, dark, layer)
    pen, height = ImageDraw.Draw(drawn), image.height / len(weights)
    font = ImageFont.load_default(max(1, min(12, 0.8 * height)))
    for part, weight in enumerate(weights):
        place = 3, (part + 0.5) * height
        pen.text(place, f"{weight:.0%}", "white", font, anchor="lm", stroke_width=1, stroke_fill="black")
    caption = percentages(weights)
    tile = Tile(drawn, f"The parts count {caption} of usual, from the top", caption)
    note = "Bright counts as much as usual in the gallery, dark is ignored; part 1 is the top."
    return Panel("query", "What the mask counts", [tile], note)
