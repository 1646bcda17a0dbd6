"""What is shown of a query, in images and words: the source of its PNG and of its place on the page."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dpm_plugin.apps.query_page import Article, Panel, Tile, parts_panel
from dpm_plugin.apps.visualize.attribution import DRIVERS
from dpm_plugin.apps.visualize.heat_maps import overlay_attention, overlay_drivers
from dpm_plugin.apps.visualize.query_view import QueryView
from dpm_plugin.apps.visualize.ranking import Ranking, outcome

# Symbol of a right and of a wrong match, for readers who do not tell green from red.
MARKS = {True: "\N{CHECK MARK}", False: "\N{BALLOT X}"}

OpenGallery = Callable[[int], tuple[str, Image.Image]]


def query_article(view: QueryView, image: Image.Image, gallery: OpenGallery, topk: int, drivers: str) -> Article:
    """The article of one query.

    Args:
        view, image: its numbers, and the query itself.
        gallery: from a position in the gallery set to (path, image).
        topk: gallery images in a ranked list.
        drivers: the method behind ``Channel.drivers``.
    """
    name = Path(view.path).name
    panels = [Panel("query", "Query", [Tile(image, name)])]
    if view.parts:
        panels.append(parts_panel(image, view.parts))
    channels, heads = [], []
    for each in view.channels:
        channel = f"channel {each.number}" if each.part is None else f"part {each.part}, channel {each.number}"
        caption = f"{channel}:\n{each.value:.2f}, on average {each.mean:.2f}"
        drawn = overlay_drivers(image, each.drivers)
        channels.append(Tile(drawn, f"What drives {channel}", caption))
    if channels:
        note = f"Red raises the channel, blue lowers it: {DRIVERS[drivers]}."
        panels.append(Panel("maps", "The mask's highest channels", channels, note))
    for head, values in enumerate(view.attention, start=1):
        caption = f"head {head}: at most {np.nanmax(values):.0%}"
        heads.append(Tile(overlay_attention(image, values), f"Attention of head {head}", caption))
    note = f"The brighter, the more attention; an even one would be {1 / view.patches:.1%} a patch."
    panels.append(Panel("maps", "Class-token attention of the last block", heads, note))
    sides = [("Ranked gallery", view.off)]
    if view.on is not None:
        sides = [("Gallery without mask", view.off), ("Gallery with the mask", view.on)]
    note = f"{MARKS[True]} right, {MARKS[False]} wrong match, with its cosine similarity."
    lists = [Panel("list", title, list(_matches(view, side, gallery, topk)), note) for title, side in sides]
    return Article(view.position + 1, name, _facts(view), panels, lists, outcome(view.off, view.on))


def _matches(view: QueryView, side: Ranking, gallery: OpenGallery, topk: int) -> Iterator[Tile]:
    """The first ``topk`` of a ranking; with the mask, each also says its rank without."""
    for rank, position in enumerate(side.order[:topk], start=1):
        path, image = gallery(position)
        right, old = bool(side.right[rank - 1]), view.off.rank_of(position)
        caption = f"{MARKS[right]} {side.similarity[rank - 1]:.3f}" + ("" if old == rank else f"\n(was {old})")
        alt = f"rank {rank}, {'right' if right else 'wrong'} match"
        yield Tile(image, alt, caption, Path(path).name, right)


def _facts(view: QueryView) -> list[str]:
    facts = [f"identity {view.pid}", f"camera index {view.camid}"]
    if view.occlusion is not None:
        facts.append(f"{view.occlusion['hidden']:.0%} hidden by {view.occlusion['occluder']}")
    if view.off.first_match is None:
        return facts + ["no image to find in the gallery"]
    ranks, precision = f"first right match at rank {view.off.first_match}", f"AP {view.off.average_precision:.3f}"
    if view.on is not None:
        ranks += f", with the mask {view.on.first_match}"
        precision += f", with the mask {view.on.average_precision:.3f}"
    return facts + [ranks, precision]
