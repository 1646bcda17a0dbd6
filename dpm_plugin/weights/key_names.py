"""The tensor names of ViT checkpoints: which implementation's names a file uses, and renaming them to ours and back."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from dpm_plugin.weights.conversions import ENCODER, as_timm

# The ImageNet classifiers ("base.fc.", "head.") are used by nothing. They keep their names among ours, so that a
# converted file can be converted back to what it was.
_RELEASED = (
    ("base.fc.", "base.fc."),
    ("base.ConvLayer.0.", "mask_generator.conv1."),
    ("base.ConvLayer.2.", "mask_generator.conv2."),
    ("base.ConvLayer.4.", "mask_generator.conv3."),
    ("base.attfc.", "mask_generator.linear."),
    ("base.sie_embed", "backbone.camera_embedding"),
    ("base.", ENCODER),
    ("bottleneck.", "neck."),
    ("classifier.", "classifier."),
)
_OWN_ENCODER = tuple((name, ENCODER + name) for name in ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm."))
# DINO's names, with what its followers add beside the tokens of a ViT: PASS's part tokens, iBOT's masked patch.
_DINO = (*((name, name) for name in ("backbone.part", "backbone.masked_embed")), ("backbone.", ENCODER))
_CLIP_BLOCK = (
    (".ln_1.", ".norm1."),
    (".ln_2.", ".norm2."),
    (".attn.in_proj_", ".attn.qkv."),
    (".attn.out_proj.", ".attn.proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)


def _clip(prefix: str) -> tuple[tuple[str, str], ...]:
    """The image tower of CLIP, without its projection to the space of texts."""
    names = {"conv1": "patch_embed.proj", "ln_pre": "norm_pre", "transformer.resblocks": "blocks", "ln_post": "norm"}
    tokens = [(prefix + name, ENCODER + name) for name in ("class_embedding", "positional_embedding")]
    return (*tokens, *((f"{prefix}{theirs}.", f"{ENCODER}{ours}.") for theirs, ours in names.items()))


class Naming(NamedTuple):
    """How one implementation names its tensors."""

    marks: tuple[str, ...]  # beginnings of names; a file that has them all uses this naming
    pairs: tuple[tuple[str, str], ...] = ()  # (its beginning of a name, ours), the first that fits; (): names stay
    inside: tuple[tuple[str, str], ...] = ()  # (its part of a name, ours), replaced after the beginning
    square: bool = False  # whether its position embeddings are of square images, where their number can be a square
    backbone: str = ""  # a timm model that such files fit


#: Every known naming, the first that fits counts.
NAMINGS = {
    "dpm": Naming((ENCODER,)),  # this package
    "released": Naming(("base.blocks.", "base.ConvLayer."), _RELEASED),  # DPM's released implementation
    "transreid": Naming(("base.blocks.",), _RELEASED),  # and a released baseline
    # CLIP-ReID: CLIP's image tower with a neck and classifier as TransReID's
    "clip-reid": Naming(
        ("image_encoder.transformer.resblocks.",),
        (*_clip("image_encoder."), ("bottleneck.", "neck."), ("classifier.", "classifier.")),
        _CLIP_BLOCK,
        backbone="vit_base_patch16_clip_quickgelu_224",
    ),
    "clip": Naming(
        ("visual.transformer.resblocks.",), _clip("visual."), _CLIP_BLOCK, True, "vit_base_patch16_clip_quickgelu_224"
    ),
    "clip-tower": Naming(  # its image tower alone
        ("class_embedding", "transformer.resblocks."), _clip(""), _CLIP_BLOCK, True, "vit_base_patch16_clip_224"
    ),
    "pass": Naming(("backbone.part_token1", "backbone.cls_pos"), _DINO, square=True, backbone="vit_base_patch16_224"),
    # DINO, iBOT, TransReID-SSL, PersonViT
    "dino": Naming(("backbone.patch_embed.proj.weight",), _DINO, square=True, backbone="vit_base_patch16_224"),
    "mae": Naming(("patch_embed.proj.weight", "decoder_blocks."), _OWN_ENCODER, (), True, "vit_base_patch16_224"),
    "dinov2": Naming(
        ("patch_embed.proj.weight", "mask_token", "blocks.0.ls1."),
        (("mask_token", "mask_token"), ("head.", "head."), ("", ENCODER)),
        ((".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2.")),
        True,
        "vit_base_patch14_dinov2, or with registers vit_base_patch14_reg4_dinov2",
    ),
    "timm": Naming(("patch_embed.proj.weight",), (("head.", "head."), ("", ENCODER)), square=True),  # a plain ViT
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
    renamed, unused = rename(state, NAMINGS[naming].pairs, NAMINGS[naming].inside)
    return Renamed(naming, as_timm(renamed), unused)


def from_own_names(state: Mapping[str, Tensor], naming: str) -> tuple[dict[str, Tensor], list[str]]:
    """Our names to those of ``naming``; returns (state, our names that it has no place for)."""
    known = NAMINGS[naming]
    return rename(state, *([(ours, theirs) for theirs, ours in pairs] for pairs in (known.pairs, known.inside)))


def rename(
    state: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]], inside: Iterable[tuple[str, str]] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """Replace beginnings of names, and bring the camera embedding to the shape that goes with its name.

    Args:
        pairs: (old beginning, new one), the first that fits counts. None: the names stay as they are.
        inside: (old part, new one), all replaced in what ``pairs`` gave. Default: none.

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
        for old, new in inside:
            name = name.replace(old, new)
        if name == "backbone.camera_embedding" and value.dim() == 3:
            value = value.squeeze(1)  # (N, 1, C) to (N, C)
        elif name == "base.sie_embed" and value.dim() == 2:
            value = value.unsqueeze(1)  # (N, C) to (N, 1, C)
        renamed[name] = value
    return renamed, unused


def nearest_naming(state: Iterable[str], encoder: Mapping[str, Tensor]) -> str:
    """Words for an error: the naming that most of the names in a file are of, for an ``encoder`` under our names."""
    names = dict.fromkeys(state)
    ends = {key[start:] for key in names for start in (0, *(dot.end() for dot in re.finditer(r"\.", key[:200])))}
    sides = {naming: from_own_names(encoder, naming)[0].keys() for naming in NAMINGS if NAMINGS[naming].marks}
    best = max(sides, key=lambda naming: (len(ends & sides[naming]), len(names.keys() & sides[naming])))
    if not (there := len(ends & sides[best])):
        return f"no name in it is that of a known ViT's tensor, the first is {next(iter(names))[:80]!r}"
    other = next((key for key in sorted(sides[best]) if key not in names), "")
    place = next((key for key in names if key.endswith(f".{other}")), "")
    lacks = f", but {other!r} is {f'named {place[:80]!r}' if place else 'not'}" if other else ""
    return f"the nearest known naming is '{best}': {there} of its {len(sides[best])} names are there{lacks}"


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
