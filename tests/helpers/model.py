"""Tiny models, batches and engines for the tests."""

import types

import torch

from dpm_plugin import DPM, ImageDPMEngine
from dpm_plugin.method.recipe import build_optimizer
from dpm_plugin.weights.key_names import NAMINGS, rename
from dpm_plugin.weights.load import load_pretrained

TINY = dict(
    backbone="vit_tiny_patch16_224",
    img_size=(64, 32),
    stride=8,
    patch_size=8,
    embed_dim=24,
    depth=4,
    num_heads=3,
    drop_path=0.0,
)


def tiny_model(num_classes=5, pretrained=False, **options):
    model = DPM(num_classes, **{**TINY, "num_cameras": 3, **options})
    if pretrained:
        load_pretrained(model.backbone, pretrained)
    return model


def to_released(state):
    """Our names to the released implementation's: the inverse of the table under test."""
    renamed = {}
    for key, value in state.items():
        old, new = next((old, new) for old, new in NAMINGS["released"].pairs if key.startswith(new))
        renamed[old + key[len(new) :]] = value.unsqueeze(1) if new == "backbone.camera_embedding" else value
    return renamed


def from_released(state):
    """The released implementation's names to ours, without the classifier that nothing uses."""
    renamed, _ = rename(state, NAMINGS["released"].pairs)
    return {key: value for key, value in renamed.items() if not key.startswith("base.fc.")}


def batch(size=8, num_classes=5, img_size=(64, 32), seed=0):
    """What a torchreid loader yields, with two images an identity."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "img": torch.randn(size, 3, *img_size, generator=generator),
        "pid": torch.arange(size) // 2 % num_classes,
        "camid": torch.randint(0, 3, (size,), generator=generator),
    }


def engine_for(model, batches=(), criterion=None, scheduler=None, optimizer=None, **options):
    """An ImageDPMEngine over a list of batches, without evaluation data."""
    manager = types.SimpleNamespace(train_loader=list(batches), test_loader={}, sources=["tiny"])
    optimizer = optimizer or build_optimizer(model, lr=0.05)
    engine = ImageDPMEngine(manager, model, optimizer, scheduler, criterion, use_gpu=False, **options)
    engine.num_batches, engine.batch_idx, engine.max_epoch = len(batches), 0, 1
    model.train()
    return engine


def assert_identical(found, expected, where=""):
    """Equal in every bit: tensors, numbers, names and their order."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected) and found.dtype == expected.dtype, where
    elif isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            assert_identical(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for index, item in enumerate(expected):
            assert_identical(found[index], item, f"{where}[{index}]")
    else:
        assert found == expected, where
