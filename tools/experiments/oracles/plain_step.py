"""One iteration as section 4.1 reads: two full passes with every gradient, an optimizer for each part.

Oracle and benchmark contender of the engine's step: attention with its matrix written out, which also gives the
head logits of Eq. 5, masked ArcFace one image at a time, optimizers that loop over their parameters.
"""

import contextlib

import torch
from torch.nn import functional as F

LR, MOMENTUM, DECAY = 0.008, 0.9, 1e-4


def attention(attn, tokens, prefix):
    """A timm ``Attention`` without fused kernels: output (B, T, C) and class-to-patch logits (B, N, P)."""
    batch, count, width = tokens.shape
    qkv = attn.qkv(tokens).reshape(batch, count, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv  # (B, N, T, C / N)
    logits = query * attn.scale @ key.transpose(-2, -1)  # (B, N, T, T)
    mixed = logits.softmax(dim=-1) @ value
    return attn.proj(mixed.transpose(1, 2).reshape(batch, count, width)), logits[:, :, 0, prefix:]


def encode(model, images, camids):
    """Class token (B, C), patch maps of the mask blocks, head logits of the last block."""
    vit, backbone = model.backbone.transformer, model.backbone
    patches = vit.patch_embed(images)
    grid = patches.shape[1:3]
    tokens = vit._pos_embed(patches)
    if backbone.camera_embedding is not None:
        tokens = tokens + backbone.camera_weight * backbone.camera_embedding[camids][:, None]  # Eq. 2
    maps = []
    for number, block in enumerate(vit.blocks, start=1):
        mixed, logits = attention(block.attn, block.norm1(tokens), vit.num_prefix_tokens)
        tokens = tokens + block.drop_path1(block.ls1(mixed))
        tokens = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
        if number in model.mask_blocks:
            maps.append(tokens[:, vit.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid))
    return vit.norm(tokens)[:, 0], maps, logits


def losses(model, images, labels, camids, masked_head):
    """(total, cls, masked, head, triplet) of Eq. 8 with the paper's weights.

    Args:
        masked_head: (features, prototypes, mask, labels) -> logits of Eq. 7, as ``plain_head.masked_arcface``.
    """
    token, maps, head_logits = encode(model, images, camids)
    token, head_logits = token.float(), head_logits.float()
    mask = model.mask_generator(maps)
    feature = model.neck(token)
    with torch.autocast(images.device.type, enabled=False):  # the losses in float32, as ours
        prototypes = model.classifier.weight
        cls = F.cross_entropy(feature @ prototypes.T, labels)
        masked = F.cross_entropy(masked_head(feature, prototypes, mask, labels), labels)  # Eq. 7
        heads = F.normalize(head_logits.softmax(dim=-1), dim=-1)  # Eq. 5
        gram = heads @ heads.transpose(1, 2) - torch.eye(heads.shape[1], device=heads.device)
        head = gram.square().sum(dim=(1, 2)).mean()  # Eq. 6
        distance = torch.cdist(token, token)
        same = labels[:, None] == labels[None]
        farthest = torch.where(same, distance, -torch.inf).amax(dim=1)
        nearest = torch.where(same, torch.inf, distance).amin(dim=1)
        triplet = F.softplus(farthest - nearest).mean()
    return 0.5 * cls + 0.5 * masked + 0.1 * head + triplet, cls, masked, head, triplet  # Eq. 8


class TwoSteps:
    """The iteration over ``model``, as a function of a batch.

    Args:
        model: a DPM with mask branch and without stochastic depth, in training mode.
        masked_head: see :func:`losses`.
        lr: learning rate, twice that for biases.
        precision: function that gives the context of the forward passes (autocast).
        scale: whether to scale gradients, for float16; not with ``together``.
        together: one pass that updates both parts, instead of two.
    """

    def __init__(self, model, masked_head, lr=LR, precision=contextlib.nullcontext, scale=False, together=False):
        self.model, self.masked_head, self.precision, self.together = model, masked_head, precision, together
        self.optimizers = [
            torch.optim.SGD(self._groups(of_mask, lr), momentum=MOMENTUM, weight_decay=DECAY, foreach=False)
            for of_mask in (False, True)
        ]
        device = next(model.parameters()).device.type
        self.scalers = [torch.amp.GradScaler(device, enabled=scale) for _ in self.optimizers]

    def _groups(self, of_mask, lr):
        named = dict(self.model.named_parameters())
        named = {name: p for name, p in named.items() if name.startswith("mask_generator.") == of_mask}
        return [
            {"params": [named[name] for name in named if name.endswith("bias") == bias], "lr": (2 if bias else 1) * lr}
            for bias in (True, False)
        ]

    def __call__(self, images, labels, camids):
        """Losses of every pass, (1 or 2) x 5 numbers."""
        told, parts = [], list(zip(self.optimizers, self.scalers))
        for updated in [parts] if self.together else [[part] for part in parts]:
            self.model.zero_grad()
            with self.precision():
                found = losses(self.model, images, labels, camids, self.masked_head)
            updated[0][1].scale(found[0]).backward()
            for optimizer, scaler in updated:
                scaler.step(optimizer)
                scaler.update()
            told.append([value.item() for value in found])
        return told
