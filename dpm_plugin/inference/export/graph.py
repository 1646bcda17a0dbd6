"""What is exported: pictures to embedding and mask, with the batch size free."""

import json

import torch
from torch import nn


class RetrievalGraph(nn.Module):
    """``embed`` of one of the plugin's models without what a search does not need.

    Shape:
        images (B, 3, H, W) -> embedding (B, D), mask (B, D), both float32; embedding alone without mask branch.
        Of the neutral camera.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    @property
    def outputs(self):
        """Their names, in order."""
        return ("embedding", "mask") if self.model.has_mask else ("embedding",)

    def forward(self, images):
        heads = self.model.heads(self.model.backbone(images, None, blocks=self.model.mask_blocks))
        return tuple(getattr(heads, name).float() for name in self.outputs)


def traced(graph, image_size):
    """The graph as a ``torch.export.ExportedProgram`` of any batch size from 1 on."""
    images = torch.zeros(2, 3, *image_size)  # 2: torch.export would take a 1 for a constant
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(graph, (images,), dynamic_shapes={"images": {0: batch}})


def preparation(extractor):
    """How to prepare pictures for the file, as {name: text}; lists are JSON."""
    config = extractor.config
    return {
        "image_size": json.dumps(list(extractor.image_size)),  # height, width
        "mean": json.dumps(list(extractor.mean)),
        "std": json.dumps(list(extractor.std)),
        "channels": "RGB",
        "range": "0 to 1, then (x - mean) / std",
        "resize": "bilinear with antialiasing, as Pillow's",
        "model": extractor.model.backbone.backbone_name if config is None else config.model.name,
    }
