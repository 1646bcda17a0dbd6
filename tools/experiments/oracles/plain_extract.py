"""Retrieval features by timm's own forward pass and the mask generator: oracle and contender of the extraction."""

import torch


@torch.inference_mode()
def features(model, images):
    """(class token, embedding, mask), each (B, D), of a DPM in eval mode without camera embedding."""
    tokens, maps = model.backbone.transformer.forward_intermediates(
        images, indices=[block - 1 for block in model.mask_blocks], return_prefix_tokens=False
    )
    cls = tokens[:, 0]
    return cls, model.neck(cls), model.mask_generator(maps)
