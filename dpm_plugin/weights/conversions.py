"""Encoder tensors that others keep in another form than timm's VisionTransformer, and encoders that are none."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from dpm_plugin.utils.errors import DPMError

ENCODER = "backbone.transformer."  # before timm's names in a model of this package

# (what is found in a tensor's name, what such a file holds)
_FOREIGN = (
    (r"(layers|stages)\.\d+\.blocks\.\d+\.", "a Swin Transformer (SOLIDER's, for example), which has no class token"),
    (r"patch_embed\.conv\.\d", 'a ViT with a convolutional stem (TransReID-SSL\'s "ICS"), not one patch embedding'),
    (
        r"storage_tokens|rope_embed\.|rope\.freqs|rel_pos_bias\."
        r"|blocks\.\d+\.(gamma_[12]$|attn\.(relative_position_bias_table|[qv]_bias$|q_proj\.))",
        "an encoder of the DINOv3, EVA or BEiT kind, whose blocks are not those of timm's VisionTransformer",
    ),
    (r"(visual|image_encoder)\.layer[1-4]\.\d", "a ResNet (CLIP's, for example), which has no class token"),
    (r"embeddings\.patch_embedding", "a ViT under the names of transformers; take the file that its authors published"),
)


def refuse_foreign(names: Iterable[str], source: str) -> None:
    """Raise DPMError where the tensors in ``source`` are of an encoder that cannot be this package's."""
    names = list(names)
    for pattern, what in _FOREIGN:
        mark = next((name for name in names if re.search(rf"(^|\.)({pattern})", name)), None)
        if mark is not None:
            raise DPMError(f"{source} holds {what} ('{mark}'); what is read: configs/README.md, \"Pretrained weights\"")


def as_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's, PASS's and DINOv2's tokens and positions in the form of timm's, in a state dict under our names.

    What does not fit together stays as it is.
    """
    state = dict(state)
    cls_name, position_name = f"{ENCODER}cls_token", f"{ENCODER}pos_embed"
    if (token := state.pop(f"{ENCODER}class_embedding", None)) is not None:  # CLIP: (C,)
        state[cls_name] = token[None, None]
    if (position := state.pop(f"{ENCODER}positional_embedding", None)) is not None:  # CLIP: (1 + P, C)
        state[position_name] = position[None]
    cls, position = state.get(cls_name), state.get(position_name)  # (1, 1, C), (1, 1 + P, C)
    if cls is None or position is None or position.dim() != 3:
        return state
    own_position, registers = (state.get(ENCODER + name) for name in ("cls_pos", "register_tokens"))
    if own_position is not None and own_position.shape == (1, 1, position.shape[2]):  # PASS: positions are (1, P, C)
        state[position_name] = torch.cat([state.pop(f"{ENCODER}cls_pos"), position], dim=1)
    elif registers is not None and cls.shape == position[:, :1].shape:  # DINOv2: the registers have no position
        state[f"{ENCODER}reg_token"] = state.pop(f"{ENCODER}register_tokens")
        state[cls_name], state[position_name] = cls + position[:, :1], position[:, 1:]
    return state
