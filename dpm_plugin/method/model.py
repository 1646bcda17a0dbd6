"""DPM assembled: ViT encoder, mask generator, BN neck and one shared prototype matrix."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dpm_plugin.method.losses import DPMOutput
from dpm_plugin.method.mask_generator import HierarchicalMaskGenerator, check_blocks, default_blocks
from dpm_plugin.method.part_features import PartFeatures, part_masks
from dpm_plugin.method.vit import EncoderOutput, ViT
from dpm_plugin.utils.errors import DPMError

# Value of train.conv_layout -> memory format of the mask generator's maps.
CONV_LAYOUTS: dict[str, torch.memory_format | None] = {
    "auto": None,
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}
# Value of vit.prototype_init -> what fills W.
PROTOTYPE_INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": partial(nn.init.normal_, std=0.02),
    "xavier": nn.init.xavier_uniform_,
}


class Embedding(NamedTuple):
    """Retrieval outputs for B images, float32.

    Attributes:
        cls: class token before the neck, with parts their features behind it, (B, D).
        embedding: after the neck, (B, D); equal to ``cls`` without a neck.
        mask: (B, D) in (0, 1), or None for a model without mask branch.
        head_logits: last block's class-to-patch logits, (B, N, P); None where they were not asked for.
    """

    cls: Tensor
    embedding: Tensor
    mask: Tensor | None
    head_logits: Tensor | None


class BNNeck(nn.BatchNorm1d):
    """BatchNorm1d whose bias is a buffer, starting at zero.

    The released recipe freezes this bias. As a buffer it stays frozen under any engine: torchreid's
    set ``requires_grad`` on every parameter at the start of every epoch. Its name in a state
    dict is the usual one.

    Shape:
        (B, D) -> (B, D).
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        bias = torch.zeros(dim)
        del self.bias
        self.register_buffer("bias", bias)


class DPM(nn.Module):
    """Dynamic Prototype Mask network (paper section 3, Figure 2).

    Args:
        num_classes: training identities K, the rows of the prototype matrix W.
        loss: what ``forward`` returns in training, by torchreid's contract: "softmax" gives
            logits (B, K), "triplet" gives (logits, class token (B, D)). ``ImageDPMEngine``
            does not use it. Default: "softmax".
        mask_blocks: 1-based blocks feeding the mask generator; None for the paper's 2, 4,
            10, 12 (scaled to the depth), () for no mask branch at all: the paper's baseline.
            Default: None.
        mask_pool: "avg" or "max" pooling in the mask generator. Default: "avg".
        neck: BatchNorm between class token and heads (its bias stays 0, as released). Default: True.
        parts: number K of stripes with a feature each beside the class token, beyond the paper, see
            :mod:`~dpm_plugin.method.part_features`. Default: 0, the paper.
        part_dim: channels P of a part feature. Default: 0, half as many as a token has.
        prototype_init: what W starts from, "normal" with standard deviation 0.02, or "xavier", its uniform
            distribution, as released (0.037 at 702 x 768). Default: "normal".
        Others: see :class:`dpm_plugin.method.vit.ViT`.

    Raises:
        DPMError: an argument that fits nothing.
    """

    def __init__(
        self,
        num_classes: int,
        loss: str = "softmax",
        *,
        backbone: str = "vit_base_patch16_224",
        img_size: tuple[int, int] = (256, 128),
        stride: int | tuple[int, int] | None = 16,
        num_cameras: int = 0,
        camera_weight: float = 3.0,
        drop_path: float = 0.1,
        token_std: float | None = None,
        mask_blocks: Iterable[int] | None = None,
        mask_pool: str = "avg",
        neck: bool = True,
        parts: int = 0,
        part_dim: int = 0,
        prototype_init: str = "normal",
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        patch_size: int | None = None,
    ) -> None:
        super().__init__()
        if loss not in ("softmax", "triplet", "dpm"):
            raise DPMError(f"loss '{loss}' is unknown to this model; choose 'softmax', 'triplet' or 'dpm'")
        if prototype_init not in PROTOTYPE_INITS:
            raise DPMError(f"prototype_init '{prototype_init}' is unknown; choose {' or '.join(PROTOTYPE_INITS)}")
        if part_dim and not parts:
            raise DPMError(f"part_dim {part_dim} would be ignored: the model has no parts; set parts (vit.parts) too")
        self.loss = loss
        self.num_classes = num_classes
        self.backbone = ViT(
            backbone,
            img_size=img_size,
            stride=stride,
            num_cameras=num_cameras,
            camera_weight=camera_weight,
            drop_path=drop_path,
            token_std=token_std,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            patch_size=patch_size,
        )
        dim = self.backbone.dim
        if mask_blocks is None:
            mask_blocks = default_blocks(self.backbone.depth)
        mask_blocks = tuple(mask_blocks)
        self.mask_blocks = check_blocks(mask_blocks, self.backbone.depth) if mask_blocks else ()
        self.part_features = PartFeatures(dim, parts, part_dim) if parts else None
        self.mask_generator = None
        if self.mask_blocks:
            part_dim = 0 if self.part_features is None else self.part_features.part_dim
            self.mask_generator = HierarchicalMaskGenerator(dim, len(self.mask_blocks), mask_pool, parts, part_dim)
        width = self.feature_dim
        self.neck = BNNeck(width) if neck else nn.Identity()
        self.classifier = nn.Linear(width, num_classes, bias=False)  # its weight is W, shared by both heads
        PROTOTYPE_INITS[prototype_init](self.classifier.weight)

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask branch."""
        return self.mask_generator is not None

    @property
    def num_cameras(self) -> int:
        """Cameras the embedding of Eq. 2 knows; 0 for none."""
        return self.backbone.num_cameras

    @property
    def feature_dim(self) -> int:
        """D of the embedding: C, with parts C + K * P."""
        return self.backbone.dim + (0 if self.part_features is None else self.part_features.width)

    def part_masks(self, mask: Tensor | None) -> Tensor | None:
        """The mean mask of each part, from the top: (n, D) to (n, K); None without parts or without masks."""
        if self.part_features is None or mask is None:
            return None
        return part_masks(mask, self.backbone.dim, self.part_features.parts)

    @property
    def map_blocks(self) -> tuple[int, ...]:
        """Blocks whose patch maps the mask generator and, the last, the part features see."""
        last = () if self.part_features is None else (self.backbone.depth,)
        return tuple(dict.fromkeys(self.mask_blocks + last))

    def forward(
        self, images: Tensor, camids: Tensor | None = None, return_featuremaps: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """torchreid's contract: (B, 3, H, W) to logits, (logits, features) or, in eval mode, (B, D) float32.

        ``return_featuremaps=True`` gives the last block's patch map (B, C, h, w).
        """
        if return_featuremaps:
            return self.backbone(images, camids, blocks=(self.backbone.depth,)).patch_maps[0]
        last = () if self.part_features is None else (self.backbone.depth,)
        features = self._features(self.backbone(images, camids, blocks=last))
        embedding = self.neck(features)
        if not self.training:
            return embedding.float()
        logits = self.classifier(embedding)
        return (logits, features) if self.loss == "triplet" else logits

    def set_conv_layout(self, layout: str) -> None:
        """Memory layout of the convolutions; values change by rounding only.

        Args:
            layout: "channels_last", weights and maps; "contiguous", neither; or "auto", contiguous weights
                with the mask generator's maps as the tokens give them, which is channels-last, but contiguous
                on a CPU from 192 channels on, where that is faster.
        """
        if layout not in CONV_LAYOUTS:
            raise DPMError(f"train.conv_layout '{layout}' is unknown; choose one of {', '.join(CONV_LAYOUTS)}")
        self.to(memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format)
        if self.mask_generator is not None:
            self.mask_generator.memory_format = CONV_LAYOUTS[layout]

    def encode(self, images: Tensor, camids: Tensor | None = None) -> EncoderOutput:
        """The encoder's part of a training forward: everything that step two needs no gradient through."""
        return self.backbone(images, camids, blocks=self.map_blocks, need_heads=self.has_mask)

    def heads(self, encoded: EncoderOutput) -> DPMOutput:
        """EncoderOutput to DPMOutput: part features, neck and mask generator."""
        features = self._features(encoded)  # (B, D)
        mask = None
        if self.mask_generator is not None:
            mask = self.mask_generator(encoded.patch_maps[: len(self.mask_blocks)])  # (B, D), Eq. 3
        return DPMOutput(features, self.neck(features), self.classifier.weight, mask, encoded.head_logits)

    def _features(self, encoded: EncoderOutput) -> Tensor:
        """The class token and, with parts, their features behind it, (B, D)."""
        if self.part_features is None:
            return encoded.cls
        return torch.cat([encoded.cls, self.part_features(encoded.patch_maps[-1])], dim=1)

    def embed(self, images: Tensor, camids: Tensor | None = None, need_heads: bool = False) -> Embedding:
        """Features and masks for retrieval, in the model's current mode; call ``eval()`` first.

        Args:
            images: (B, 3, H, W), normalised as in training.
            camids: (B,) camera indices; None or an unseen index: the neutral camera.
            need_heads: whether to compute the head logits too, which retrieval has no use for. Default: False.

        Returns:
            Embedding.
        """
        encoded = self.backbone(images, camids, blocks=self.map_blocks, need_heads=need_heads)
        output = self.heads(encoded)

        def as_float(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.float()

        return Embedding(
            output.cls.float(), output.embedding.float(), as_float(output.mask), as_float(encoded.head_logits)
        )
