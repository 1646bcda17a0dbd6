"""Which model made an index: what its features depend on, as one digest."""

import hashlib
import json
from pathlib import Path

import torch

from dpm_plugin.config import config_path
from dpm_plugin.inference.extractor import DPMExtractor
from dpm_plugin.weights.published import published


def describe(extractor: DPMExtractor, source: str | None = None, config_file: str | None = None) -> dict:
    """What an index remembers of its model, for JSON; ``source`` and ``config_file`` reopen it for a later query.

    For a model whose mask has parts, ``parts`` is their number.
    """
    model, config = extractor.model, extractor.config
    parts = {"parts": model.part_features.parts} if model.part_features is not None and model.has_mask else {}
    return {
        "fingerprint": fingerprint(extractor),
        "name": model.backbone.backbone_name if config is None else config.model.name,
        "image_size": list(extractor.image_size),
        "feature_dim": model.feature_dim,
        "source": source if source is None or published(source) else str(Path(source).absolute()),
        "config_file": None if config_file is None else str(Path(config_path(config_file)).absolute()),
        **parts,
    }


def fingerprint(extractor: DPMExtractor) -> str:
    """SHA-256 over the weights behind an embedding and every setting that changes it but is no weight."""
    model = extractor.model
    backbone, generator = model.backbone, model.mask_generator
    settings: list[object] = [extractor.image_size, extractor.mean, extractor.std, backbone.backbone_name]
    settings += [backbone.transformer.patch_embed.stride, backbone.transformer.blocks[0].attn.num_heads]
    settings += [backbone.camera_weight, model.mask_blocks, None if generator is None else generator.pool]
    if model.part_features is not None:  # without parts the digest stays what it was
        settings.append(model.part_features.parts)
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith("classifier."):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
