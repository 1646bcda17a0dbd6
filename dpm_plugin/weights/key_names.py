"""Whose names the tensors of a checkpoint have: recognised by what is in it, and renamed to ours and back."""

import re
from typing import NamedTuple

# The released implementation's names, and ours; also those of TransReID, which it was made from.
RELEASED_NAMES = (
    ("base.ConvLayer.0.", "mask_generator.conv1."),
    ("base.ConvLayer.2.", "mask_generator.conv2."),
    ("base.ConvLayer.4.", "mask_generator.conv3."),
    ("base.attfc.", "mask_generator.linear."),
    ("base.sie_embed", "backbone.camera_embedding"),
    ("base.", "backbone.transformer."),
    ("bottleneck.", "neck."),
    ("classifier.", "classifier."),
)
TIMM_NAMES = (("", "backbone.transformer."),)
#: Layout that a file can be converted to -> pairs (its beginning of a name, ours), the first that fits counts.
LAYOUTS = {"released": RELEASED_NAMES, "dpm": (("", ""),), "timm": TIMM_NAMES}
# ImageNet classifiers in released and in timm's files. Nothing uses them; they keep their names among ours, so
# that a converted file can be converted back to what it was.
CLASSIFIERS = ("base.fc.", "head.")


class Renamed(NamedTuple):
    """``layout`` as of :func:`recognise`, ``state`` under our names, ``unused`` names that have no place there."""

    layout: str
    state: dict
    unused: list


def recognise(state):
    """Layout of a state dict by its keys.

    Returns:
        "dpm" (this package), "released" (DPM's released implementation), "transreid" (TransReID's ViT, and a
        released baseline), "timm" (a plain ViT) or "torchreid" (anything else).
    """
    if any(key.startswith("backbone.transformer.") for key in state):
        return "dpm"
    if any(key.startswith("base.blocks.") for key in state):
        return "released" if any(key.startswith("base.ConvLayer.") for key in state) else "transreid"
    return "timm" if "patch_embed.proj.weight" in state else "torchreid"


def to_own_names(state):
    """A state dict of any layout under our names, in its own order.

    Returns:
        Renamed; ImageNet classifiers stay in its ``state`` under their own names.
    """
    layout = recognise(state)
    if layout in ("dpm", "torchreid"):
        return Renamed(layout, dict(state), [])
    if layout == "transreid":
        state = _global_branch(state)
    return Renamed(layout, *_rename(state, TIMM_NAMES if layout == "timm" else RELEASED_NAMES))


def rename_released(state):
    """Keys of the released implementation to ours; tensors nothing uses are left out."""
    return {key: value for key, value in _rename(state, RELEASED_NAMES)[0].items() if not key.startswith(CLASSIFIERS)}


def _rename(state, table):
    """(state under our names, list of the names without one)."""
    renamed, unused = {}, []
    for key, value in state.items():
        if key.startswith(CLASSIFIERS):
            renamed[key] = value
            continue
        own = next((ours + key[len(theirs) :] for theirs, ours in table if key.startswith(theirs)), None)
        if own is None:
            unused.append(key)
        else:
            is_camera = own == "backbone.camera_embedding" and value.dim() == 3
            renamed[own] = value.squeeze(1) if is_camera else value  # (n, 1, C) to (n, C)
    return renamed, unused


def from_own_names(state, layout):
    """Our names to those of ``layout``, a key of ``LAYOUTS``.

    Returns:
        (state, list of our names that the layout has no place for).
    """
    classifiers = {"released": "base.fc.", "timm": "head.", "dpm": CLASSIFIERS}[layout]
    renamed, left_out = {}, []
    for key, value in state.items():
        if key.startswith(CLASSIFIERS):
            new = key if key.startswith(classifiers) else None
        else:
            new = next((theirs + key[len(ours) :] for theirs, ours in LAYOUTS[layout] if key.startswith(ours)), None)
        if new is None:
            left_out.append(key)
        else:
            is_camera = new == "base.sie_embed" and value.dim() == 2
            renamed[new] = value.unsqueeze(1) if is_camera else value  # (n, C) to (n, 1, C)
    return renamed, left_out


def _global_branch(state):
    """TransReID's jigsaw variant: its branch ``b1`` is the trained last block and norm of the whole image.

    ``base`` then holds those two as they came from ImageNet; ``b2``, for the shuffled parts, stays as it is.
    """
    if "b1.0.norm1.weight" not in state:
        return state
    numbers = [key.split(".")[2] for key in state if key.startswith("base.blocks.")]
    last = max((number for number in numbers if re.fullmatch("[0-9]{1,3}", number)), key=int, default=0)
    state = dict(state)
    for branch, base in (("b1.0.", f"base.blocks.{last}."), ("b1.1.", "base.norm.")):
        for key in [key for key in state if key.startswith(branch)]:
            state[base + key.removeprefix(branch)] = state.pop(key)
    return state
