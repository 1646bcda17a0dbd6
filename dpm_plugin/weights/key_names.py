"""The tensor names of ViT checkpoints: which implementation's names a file uses, and renaming them to ours and back."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

# The ImageNet classifiers ("base.fc.", "head.") are used by nothing. They keep their names among ours, so that a
# converted file can be converted back to what it was.
_RELEASED = (
    ("base.fc.", "base.fc."),
    ("base.ConvLayer.0.", "mask_generator.conv1."),
    ("base.ConvLayer.2.", "mask_generator.conv2."),
    ("base.ConvLayer.4.", "mask_generator.conv3."),
    ("base.attfc.", "mask_generator.linear."),
    ("base.sie_embed", "backbone.camera_embedding"),
    ("base.", "backbone.transformer."),
    ("bottleneck.", "neck."),
    ("classifier.", "classifier."),
)


class Naming(NamedTuple):
    """How one implementation names its tensors."""

    marks: tuple[str, ...]  # beginnings of names; a file that has them all uses this naming
    pairs: tuple[tuple[str, str], ...] = ()  # (its beginning of a name, ours), the first that fits; (): names stay


#: Every known naming, the first that fits counts.
NAMINGS = {
    "dpm": Naming(("backbone.transformer.",)),  # this package
    "released": Naming(("base.blocks.", "base.ConvLayer."), _RELEASED),  # DPM's released implementation
    "transreid": Naming(("base.blocks.",), _RELEASED),  # and a released baseline
    "timm": Naming(("patch_embed.proj.weight",), (("head.", "head."), ("", "backbone.transformer."))),  # a plain ViT
    "torchreid": Naming(()),  # anything else
}
WRITABLE = ("released", "dpm", "timm")  # what a file can be converted to


class Renamed(NamedTuple):
    """A state dict under our names; ``naming``: what the file uses, ``unused``: its names that have no place here."""

    naming: str
    state: dict[str, Tensor]
    unused: list[str]


def recognise(state: Iterable[str]) -> str:
    """The key in ``NAMINGS`` of a state dict or its names."""
    found = {name: all(any(key.startswith(mark) for key in state) for mark in NAMINGS[name].marks) for name in NAMINGS}
    return next(name for name in found if found[name])


def to_own_names(state: Mapping[str, Tensor]) -> Renamed:
    """A state dict of any naming under our names, in its own order; ImageNet classifiers keep theirs."""
    naming = recognise(state)
    if naming == "transreid" and "b1.0.norm1.weight" in state:
        state = _global_branch(state)
    return Renamed(naming, *rename(state, NAMINGS[naming].pairs))


def from_own_names(state: Mapping[str, Tensor], naming: str) -> tuple[dict[str, Tensor], list[str]]:
    """Our names to those of ``naming``; returns (state, our names that it has no place for)."""
    return rename(state, [(ours, theirs) for theirs, ours in NAMINGS[naming].pairs])


def rename(state: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, Tensor], list[str]]:
    """Replace beginnings of names, and bring the camera embedding to the shape that goes with its name.

    Args:
        pairs: (old beginning, new one), the first that fits counts. None: the names stay as they are.

    Returns:
        (renamed state, names that no pair fits).
    """
    if not pairs:
        return dict(state), []
    renamed, unused = {}, []
    for key, value in state.items():
        name = next((new + key.removeprefix(old) for old, new in pairs if key.startswith(old)), None)
        if name is None:
            unused.append(key)
            continue
        if name == "backbone.camera_embedding" and value.dim() == 3:
            value = value.squeeze(1)  # (N, 1, C) to (N, C)
        elif name == "base.sie_embed" and value.dim() == 2:
            value = value.unsqueeze(1)  # (N, C) to (N, 1, C)
        renamed[name] = value
    return renamed, unused


def _global_branch(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """TransReID's jigsaw variant: its branch ``b1`` is the trained last block and norm of the whole image.

    ``base`` then holds those two as they came from ImageNet; ``b2``, for the shuffled parts, stays as it is.
    """
    state = dict(state)
    numbers = [key.split(".")[2] for key in state if key.startswith("base.blocks.")]
    last = max((number for number in numbers if re.fullmatch("[0-9]{1,3}", number)), key=int, default=0)
    for branch, base in (("b1.0.", f"base.blocks.{last}."), ("b1.1.", "base.norm.")):
        for key in [key for key in state if key.startswith(branch)]:
            state[base + key.removeprefix(branch)] = state.pop(key)
    return state
