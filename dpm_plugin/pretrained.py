"""Pretrained backbone weights: from timm, from a local file, or knowingly none; never silently random."""
import math
import os
from pathlib import Path

import timm
from timm.layers import resample_abs_pos_embed, resample_patch_embed

from dpm_plugin.checkpoint import check_numbers
from dpm_plugin.errors import DPMError

ENVIRONMENT_VARIABLE = "DPM_PRETRAINED"
LARGEST_PATCH = 64  # pixels; resizing needs a matrix of the fourth power of this


def load_pretrained(vit, pretrained):
    """Fill the encoder ``vit`` (:class:`dpm_plugin.vit.ViT`).

    Args:
        pretrained: True for the weights timm names for this backbone, unless the environment
            variable DPM_PRETRAINED names a local file or says "none"; or a local file: a timm or
            a released checkpoint, .pth, .safetensors or (timm's own models) .npz.

    Raises:
        DPMError: the weights can't be had or don't fit; the model is then unusable.
    """
    from dpm_plugin.weights import load_backbone_file  # weights.py imports this file

    choice = os.environ.get(ENVIRONMENT_VARIABLE, "") if pretrained is True else os.fspath(pretrained)
    if choice.lower() == "none":
        print(f"=> {ENVIRONMENT_VARIABLE}=none: '{vit.backbone_name}' starts from random weights")
        return
    if choice:
        if not Path(choice).is_file():
            source = f" (from {ENVIRONMENT_VARIABLE})" if pretrained is True else ""
            raise DPMError(f"pretrained weight file '{choice}'{source} does not exist")
        load_backbone_file(vit, choice)
        return
    load_state(vit, _timm_state(vit.backbone_name), f"timm's '{vit.backbone_name}'")


def _timm_state(name):
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # hub, network, cache and file errors of many libraries end here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DPMError(
            f"timm's pretrained weights of '{name}' can't be had ({reason}); go online once, or name a local file "
            f"by vit.pretrained_file or {ENVIRONMENT_VARIABLE}=FILE, or start knowingly from random weights with "
            f"model.pretrained False or {ENVIRONMENT_VARIABLE}=none"
        ) from error


def load_state(vit, state, source, square=True):
    """Load a plain timm state dict into ``vit``, resizing patch and position embeddings to its grid.

    Args:
        square: see :func:`fit_embeddings`.

    Raises:
        DPMError: a tensor is missing or has another shape; names the first.
    """
    transformer = vit.transformer
    own = transformer.state_dict()
    state = {key: value for key, value in state.items() if key in own}
    missing = [key for key in own if key not in state]
    if missing:
        raise DPMError(
            f"{source} does not fit backbone '{vit.backbone_name}': {len(missing)} of {len(own)} tensors are "
            f"missing, the first is '{missing[0]}'"
        )
    check_numbers(state, own, source)
    state, _ = fit_embeddings(state, transformer, square)
    wrong = [key for key in own if own[key].shape != state[key].shape]
    if wrong:
        key = wrong[0]
        raise DPMError(
            f"{source} does not fit backbone '{vit.backbone_name}': '{key}' is {tuple(state[key].shape)}, "
            f"expected {tuple(own[key].shape)}"
        )
    transformer.load_state_dict(state)


def fit_embeddings(state, transformer, square):
    """Resize the patch and the position embedding of a plain timm state dict to ``transformer``'s.

    The position embedding is resized bilinearly, as in the released implementation.

    Args:
        square: whether to take the file's grid as square where it can be, as in ImageNet models.

    Returns:
        (new state dict, {name: "16x8 to 22x11"} of what was resized); an embedding that no resizing makes fit
        stays as it is.
    """
    state, resized = dict(state), {}
    patch, position = state.get("patch_embed.proj.weight"), state.get("pos_embed")
    size = tuple(transformer.patch_embed.patch_size)
    if patch is not None and _is_resizable(patch, transformer.patch_embed.proj.weight):
        resized["patch_embed.proj.weight"] = f"{_by(patch.shape[-2:])} to {_by(size)} pixels"
        state["patch_embed.proj.weight"] = resample_patch_embed(patch, size)
    own = transformer.pos_embed
    if position is None or own is None or position.dim() != 3 or position.shape[::2] != own.shape[::2]:
        return state, resized
    prefix = 0 if transformer.no_embed_class else transformer.num_prefix_tokens
    grid = tuple(transformer.patch_embed.grid_size)
    old = guess_grid(position.shape[1] - prefix, grid, square)
    if old not in (grid, None):
        resized["pos_embed"] = f"{_by(old)} to {_by(grid)} patches"
        state["pos_embed"] = resample_abs_pos_embed(
            position, new_size=list(grid), old_size=list(old), num_prefix_tokens=prefix, interpolation="bilinear",
            antialias=False,
        )
    return state, resized


def _is_resizable(patch, own):
    """Whether a patch embedding differs from the model's in its height and width alone."""
    if patch.dim() != 4 or patch.shape[:2] != own.shape[:2] or patch.shape == own.shape:
        return False
    return all(1 <= side <= LARGEST_PATCH for side in patch.shape[2:])


def guess_grid(patches, grid, square):
    """The (h, w) a position embedding was made for; a file does not say.

    Args:
        patches: how many it has.
        grid: (h, w) of the model.
        square: whether a square goes before everything.

    Returns:
        The split of ``patches`` with nearly the shape of ``grid``, else a square, else the split nearest to
        ``grid`` in shape (of two, the taller); None where that is more than four times as long or as wide.
    """
    side = math.isqrt(max(patches, 0))
    is_square = side > 0 and side * side == patches
    if square and is_square:
        return side, side

    def mismatch(split):
        ratio = split[0] / split[1] / (grid[0] / grid[1])
        return round(max(ratio, 1 / ratio), 6)

    splits = [(h, patches // h) for h in range(patches, 0, -1) if patches % h == 0]
    nearest = min(splits, key=mismatch, default=None)
    if nearest is None or mismatch(nearest) <= 1.25:
        return nearest
    if is_square:
        return side, side
    return nearest if mismatch(nearest) <= 4 else None


def _by(size):
    return "x".join(map(str, size))
