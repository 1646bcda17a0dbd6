"""Pretrained backbone weights: from timm, from a local file, or knowingly none; never silently random."""
import math
import os
from pathlib import Path

import timm
from timm.layers import resample_abs_pos_embed, resample_patch_embed

from dpm_plugin.errors import DPMError

ENVIRONMENT_VARIABLE = "DPM_PRETRAINED"


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


def load_state(vit, state, source, old_grid=None):
    """Load a plain timm state dict into ``vit``, resizing patch and position embeddings to its grid.

    The position embedding is resized bilinearly, as in the released implementation, from
    ``old_grid`` (default: a square one).

    Raises:
        DPMError: a tensor is missing or has another shape; names the first.
    """
    transformer = vit.transformer
    own = transformer.state_dict()
    state = {key: value for key, value in state.items() if key in own}
    missing = [key for key in own if key not in state]
    if missing:
        raise DPMError(
            f"{source} does not fit backbone '{vit.backbone_name}': {len(missing)} of {len(own)} tensors are missing, "
            f"the first is '{missing[0]}'"
        )
    weight = state["patch_embed.proj.weight"]
    if weight.shape[-2:] != own["patch_embed.proj.weight"].shape[-2:]:
        state["patch_embed.proj.weight"] = resample_patch_embed(weight, transformer.patch_embed.patch_size)
    if "pos_embed" in own:
        state["pos_embed"] = resize_position_embedding(state["pos_embed"], transformer, old_grid)
    wrong = [key for key in own if own[key].shape != state[key].shape]
    if wrong:
        key = wrong[0]
        raise DPMError(
            f"{source} does not fit backbone '{vit.backbone_name}': '{key}' is {tuple(state[key].shape)}, "
            f"expected {tuple(own[key].shape)}"
        )
    transformer.load_state_dict(state)


def resize_position_embedding(embedding, transformer, old_grid=None):
    """Position embedding (1, T, C) of grid ``old_grid`` at ``transformer``'s grid.

    ``old_grid`` (h, w) is taken as square where it is not given, as in ImageNet models.
    """
    prefix = 0 if transformer.no_embed_class else transformer.num_prefix_tokens
    patches = embedding.shape[1] - prefix
    side = math.isqrt(patches)
    if old_grid is None and side * side != patches:
        raise DPMError(f"the position embedding has {patches} patches, which is no square grid")
    return resample_abs_pos_embed(
        embedding, new_size=list(transformer.patch_embed.grid_size), old_size=list(old_grid or (side, side)),
        num_prefix_tokens=prefix, interpolation="bilinear", antialias=False,
    )
