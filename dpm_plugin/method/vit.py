"""timm's ViT as DPM's encoder: overlapping patches (Eq. 1), camera embedding (Eq. 2), head logits (Eq. 5)."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import Attention, PatchEmbed, to_2tuple
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dpm_plugin.utils.errors import DPMError


class EncoderOutput(NamedTuple):
    """What the encoder saw in a batch of B images with a grid of h x w patches.

    Attributes:
        cls: class token after the final LayerNorm, (B, C).
        patch_maps: one (B, C, h, w) map per requested block, before the final LayerNorm.
        head_logits: last block's scaled class-to-patch products per head, before
            softmax, (B, N, h * w); None where they were not asked for.
    """

    cls: Tensor
    patch_maps: list[Tensor]
    head_logits: Tensor | None


class OverlapPatchEmbed(PatchEmbed):
    """timm's patch embedding with a step smaller than the patch; any image size at run time."""

    def __init__(self, *args: Any, stride: int | tuple[int, int], **kwargs: Any) -> None:  # timm says what it passes
        self.stride = to_2tuple(stride)  # read by _init_img_size, which the parent's constructor calls
        super().__init__(*args, **kwargs)
        self.proj.stride = self.stride

    def _init_img_size(self, img_size):
        img_size = to_2tuple(img_size)
        grid = self.dynamic_feat_size(img_size)
        return img_size, grid, grid[0] * grid[1]

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches for an image of (height, width) pixels."""
        # Eq. 1: (H - P + s) / s rows and (W - P + s) / s columns, rounded down
        return tuple((size - patch + step) // step for size, patch, step in zip(img_size, self.patch_size, self.stride))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, h, w, C)."""
        if images.shape[-2] < self.patch_size[0] or images.shape[-1] < self.patch_size[1]:
            raise DPMError(
                f"images of {tuple(images.shape[-2:])} pixels (height, width) are smaller than one patch "
                f"of {tuple(self.patch_size)}; use larger images or a smaller patch"
            )
        return self.norm(self.proj(images).permute(0, 2, 3, 1))  # (B, h, w, C): timm's dynamic-size layout


class ViT(nn.Module):
    """A timm VisionTransformer that also gives patch maps of chosen blocks and head logits.

    Args:
        backbone: any timm model that is a ``VisionTransformer`` with a class token, for
            example ``vit_base_patch16_224``, ``vit_small_patch14_dinov2`` or
            ``vit_base_patch16_clip_224``.
        img_size: (height, width) in pixels; other sizes work at run time, with the
            position embedding resized on the fly. Default: (256, 128).
        stride: step between patches in pixels, an int or (vertical, horizontal); None for
            the patch size (no overlap). Default: 16.
        num_cameras: rows of the camera embedding C of Eq. 2; 0 for none. Default: 0.
        camera_weight: lambda of Eq. 2. Default: 3.0.
        drop_path: stochastic depth rate of the last block. Default: 0.1.
        token_std: standard deviation that position embedding and class token start with. timm's
            0.02 suits pretraining; a ViT trained from scratch for minutes finds out where a
            patch lies many times sooner from 1.0. Default: None, timm's own.
        embed_dim, depth, num_heads, patch_size: override the backbone's own; None keeps them.

    Raises:
        DPMError: timm does not know the backbone, or it is no ViT of the supported kind.
    """

    def __init__(
        self,
        backbone: str = "vit_base_patch16_224",
        *,
        img_size: tuple[int, int] = (256, 128),
        stride: int | tuple[int, int] | None = 16,
        num_cameras: int = 0,
        camera_weight: float = 3.0,
        drop_path: float = 0.1,
        token_std: float | None = None,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        patch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone_name = backbone
        shape = dict(embed_dim=embed_dim, depth=depth, num_heads=num_heads, patch_size=patch_size)
        self.transformer = _create_transformer(
            backbone, img_size, stride, drop_path, {k: v for k, v in shape.items() if v is not None}
        )
        if token_std is not None:
            for token in (self.transformer.pos_embed, self.transformer.cls_token):
                nn.init.normal_(token, std=token_std)
        self.camera_weight = camera_weight
        self.num_cameras = num_cameras
        self.camera_embedding: nn.Parameter | None = None
        if num_cameras > 0:
            self.camera_embedding = nn.Parameter(torch.empty(num_cameras, self.dim))  # C of Eq. 2
            nn.init.trunc_normal_(self.camera_embedding, std=0.02)

    @property
    def dim(self) -> int:
        """Channels C of every token."""
        return self.transformer.embed_dim

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return len(self.transformer.blocks)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As timm's: keep only the input of each block and run it again in the backward pass; same gradients."""
        self.transformer.set_grad_checkpointing(enable)

    def freeze(self, blocks: int) -> None:
        """Freeze patch embedding, position embedding and the first ``blocks`` blocks; DPMError where there are fewer.

        The class token and the camera embedding stay open.
        """
        vit = self.transformer
        if blocks > self.depth:
            raise DPMError(
                f"train.freeze_blocks {blocks} is more than the {self.depth} blocks of '{self.backbone_name}'"
            )
        vit.pos_embed.requires_grad_(False)
        for part in (vit.patch_embed, vit.norm_pre, *vit.blocks[:blocks]):
            part.requires_grad_(False)

    def forward(
        self, images: Tensor, camids: Tensor | None = None, *, blocks: Sequence[int] = (), need_heads: bool = False
    ) -> EncoderOutput:
        """Encode ``images`` (B, 3, H, W).

        Args:
            camids: (B,) camera indices, or None where unknown. A camera that was not in
                training (an index outside 0..num_cameras-1) gets the mean of all camera
                embeddings: the neutral choice, the same for None.
            blocks: 1-based blocks whose patch maps are wanted.
            need_heads: whether to compute the last block's head logits.

        Returns:
            EncoderOutput.
        """
        vit = self.transformer
        patches = vit.patch_embed(images)  # (B, h, w, C)
        grid = patches.shape[1:3]
        tokens = vit._pos_embed(patches)  # (B, 1 + R + P, C); R register or distillation tokens, P = h * w
        if self.camera_embedding is not None:
            # shape[0], not len(): that would fix the batch size in an exported model
            cameras = self._cameras(self.camera_embedding, camids, images.shape[0])  # (B, 1, C)
            tokens = tokens + self.camera_weight * cameras  # Eq. 2
        tokens = vit.norm_pre(tokens)
        patch_maps, head_logits = {}, None
        for number, block in enumerate(vit.blocks, start=1):
            if need_heads and number == self.depth:
                head_logits = class_to_patch_logits(block.attn, block.norm1(tokens), vit.num_prefix_tokens)
            if vit.grad_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
            if number in blocks:
                patch_maps[number] = _to_map(tokens[:, vit.num_prefix_tokens :], grid)
        cls = vit.norm(tokens[:, :1])[:, 0]  # LayerNorm acts on each token alone
        return EncoderOutput(cls, [patch_maps[b] for b in blocks], head_logits)

    def _cameras(self, embedding: Tensor, camids: Tensor | None, batch: int) -> Tensor:
        """Rows of the camera embedding (cameras, C) for a batch, (B, 1, C)."""
        neutral = embedding.mean(dim=0, keepdim=True)  # (1, C)
        if camids is None:
            return neutral.expand(batch, -1).unsqueeze(1)
        known = (camids >= 0) & (camids < self.num_cameras)
        index = torch.where(known, camids, self.num_cameras)
        return torch.cat([embedding, neutral])[index].unsqueeze(1)


def class_to_patch_logits(attention: Attention, tokens: Tensor, num_prefix_tokens: int) -> Tensor:
    """q_cls K_img^T / sqrt(c / N) of Eq. 5, before its softmax.

    Computed beside the block from its own weights, so that the block itself keeps timm's
    fused attention; only one query and the keys are projected again.

    Args:
        attention: the block's timm ``Attention``.
        tokens: its input, (B, T, C), prefix tokens first, the class token at index 0.
        num_prefix_tokens: tokens that are no patches.

    Returns:
        (B, N, P).
    """
    width = attention.attn_dim if hasattr(attention, "attn_dim") else tokens.shape[-1]
    weight, bias = attention.qkv.weight, attention.qkv.bias

    def project(x: Tensor, part: int) -> Tensor:
        rows = slice(part * width, (part + 1) * width)
        out = F.linear(x, weight[rows], None if bias is None else bias[rows])
        return out.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # (B, N, T, C / N)

    query = attention.q_norm(project(tokens[:, :1], 0))
    keys = attention.k_norm(project(tokens[:, num_prefix_tokens:], 1))
    return (query * attention.scale @ keys.transpose(-2, -1)).squeeze(2)  # Eq. 5


def _to_map(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h * w, C) to (B, C, h, w)."""
    return patches.transpose(1, 2).unflatten(2, grid)


@cache  # on the meta device a ViT has no memory, but its construction takes a quarter of a second
def plain_backbone(name: str) -> nn.Module:
    """timm's model as it comes, on the meta device, without classifier; only to be looked at.

    Raises:
        DPMError: timm cannot build it.
    """
    with torch.device("meta"):
        try:
            return timm.create_model(name, pretrained=False, num_classes=0)
        except Exception as error:
            raise DPMError(f"timm could not build backbone '{name}': {error}") from error


def _create_transformer(backbone, img_size, stride, drop_path, shape):
    try:
        timm.models.model_entrypoint(backbone.partition(":")[2] or backbone)
    except Exception as error:
        close = timm.list_models(f"*{backbone.split('.')[0][:12]}*")[:5]
        raise DPMError(
            f"timm has no model '{backbone}'" + (f"; similar names: {', '.join(close)}" if close else "")
        ) from error
    plain = plain_backbone(backbone)  # looked at first: a wrong one fails deep inside timm with many kinds of errors
    _check_supported(backbone, plain)
    stride = stride or shape.get("patch_size") or plain.patch_embed.patch_size
    _check_shape(backbone, plain, img_size, stride, shape)
    return timm.create_model(
        backbone,
        pretrained=False,
        num_classes=0,
        global_pool="token",
        img_size=img_size,
        dynamic_img_size=True,
        drop_path_rate=drop_path,
        embed_layer=partial(OverlapPatchEmbed, stride=stride),
        **shape,
    )


def _check_supported(backbone, model):
    missing = None
    if not isinstance(model, VisionTransformer):
        missing = f"it is a {type(model).__name__}, not a timm VisionTransformer"
    elif model.cls_token is None:
        missing = "it has no class token, which DPM's prototypes are trained from"
    elif type(model.patch_embed) is not PatchEmbed:
        missing = f"its patch embedding is a {type(model.patch_embed).__name__}, not one convolution"
    elif type(model.blocks[-1]) is not Block or type(model.blocks[-1].attn) is not Attention:
        missing = (
            f"its blocks are {type(model.blocks[-1]).__name__} with "
            f"{type(getattr(model.blocks[-1], 'attn', None)).__name__}, "
            "while Eq. 5 needs timm's Block with one qkv projection"
        )
    if missing:
        raise DPMError(
            f"backbone '{backbone}' is not supported: {missing}; "
            "choose a ViT such as vit_small_patch16_224, vit_small_patch14_dinov2 or vit_base_patch16_clip_224"
        )


def _check_shape(backbone, model, img_size, stride, shape):
    patch = to_2tuple(shape.get("patch_size") or model.patch_embed.patch_size)
    img_size, stride = to_2tuple(img_size), to_2tuple(stride)
    if min(stride) < 1:
        raise DPMError(f"stride {stride} must be at least 1 pixel")
    if any(size < p for size, p in zip(img_size, patch)):
        raise DPMError(f"img_size {img_size} is smaller than the {patch} patch of '{backbone}'")
    dim = shape.get("embed_dim") or model.embed_dim
    heads = shape.get("num_heads") or model.blocks[-1].attn.num_heads
    if dim % heads:
        raise DPMError(f"embed_dim {dim} is not divisible by num_heads {heads}")
