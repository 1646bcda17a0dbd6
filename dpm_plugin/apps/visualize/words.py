"""The words that PNG and page share."""

import math
from pathlib import Path

#: Symbol of a right and of a wrong match, for readers who do not tell green from red.
MARKS = {True: "\N{CHECK MARK}", False: "\N{BALLOT X}"}
OUTCOMES = {"helped": "mask helped", "hurt": "mask hurt", "same": "same with the mask", None: ""}
DRIVERS = {
    "paint": "by how much the channel's logit falls when a patch is painted over in the mean colour",
    "gradient": "gradient of the channel's logit by the patch maps, times their difference from the mean map",
}


def file_name(path):
    """The last part of a path, as text that every encoding has."""
    return Path(path).name.encode("utf-8", "replace").decode("utf-8")


def facts(view):
    """What is known of a query beside its picture, as a list of short phrases."""
    known = [f"identity {view.pid}", f"camera index {view.camid}"]
    if view.occlusion is not None:
        known.append(f"{view.occlusion['hidden']:.0%} hidden by {view.occlusion['occluder']}")
    if view.off.first_match is None:
        return known + ["no image to find in the gallery"]
    ranks = f"first right match at rank {view.off.first_match}"
    precisions = f"AP {view.off.average_precision:.3f}"
    if view.on is not None:
        ranks += f", with the mask {view.on.first_match}"
        precisions += f", with the mask {view.on.average_precision:.3f}"
    return known + [ranks, precisions]


def channel_title(channel):
    return f"channel {channel.number}: {channel.value:.2f}, on average {channel.mean:.2f}"


def drivers_note(method):
    return f"Red raises the channel, blue lowers it: {DRIVERS[method]}."


def attention_note(view):
    return f"The brighter, the more attention; an even one would be {1 / view.patches:.1%} a patch."


def head_title(number, view):
    """Of head ``number``, from 0: how much the patch it looks at most has of its attention."""
    peak = float(max(value for row in view.attention[number] for value in row if math.isfinite(value)))
    return f"head {number + 1}: at most {peak:.0%}"


def ranking_title(with_mask, has_mask):
    if not has_mask:
        return "Ranked gallery"
    return "Gallery with the mask" if with_mask else "Gallery without mask"


def ranking_note():
    return f"{MARKS[True]} right, {MARKS[False]} wrong match, with its cosine similarity."


def match_title(view, side, index):
    """Under the gallery image at ``index``, from 0, of ``side``; with the mask, also the rank without."""
    title = f"{MARKS[bool(side.right[index])]} {side.similarity[index]:.3f}"
    if side is view.on:
        old = view.off.rank_of(side.order[index])
        title += "" if old == index + 1 else f" (was {old})"
    return title
