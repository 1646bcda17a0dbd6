"""The models that torchreid users name with ``-m``: short functions in the style of its own factory.

``pretrained``: True, False or a file, see :func:`dpm_plugin.weights.load.load_pretrained`. ``options``: those of
:class:`~dpm_plugin.method.model.DPM`, and ``backbone``, another timm ViT.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from dpm_plugin.method.model import DPM
from dpm_plugin.weights.load import load_pretrained

_BASE = "vit_base_patch16_224.orig_in21k_ft_in1k"  # the original ViT-B/16 weights, as in the paper
_SMALL = "vit_small_patch16_224.augreg_in21k_ft_in1k"
_TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


def dpm_vit(
    num_classes: int, loss: str = "softmax", pretrained: bool | str = True, use_gpu: bool = True, **options: Any
) -> DPM:
    """DPM on ViT-B/16, 86 M parameters without the mask generator."""
    return _build(_BASE, num_classes, loss, pretrained, options)


def dpm_vit_small(
    num_classes: int, loss: str = "softmax", pretrained: bool | str = True, use_gpu: bool = True, **options: Any
) -> DPM:
    """DPM on ViT-S/16 (384 channels)."""
    return _build(_SMALL, num_classes, loss, pretrained, options)


def dpm_vit_tiny(
    num_classes: int, loss: str = "softmax", pretrained: bool | str = True, use_gpu: bool = True, **options: Any
) -> DPM:
    """DPM on ViT-Ti/16 (192 channels)."""
    return _build(_TINY, num_classes, loss, pretrained, options)


def vit_baseline(
    num_classes: int, loss: str = "softmax", pretrained: bool | str = True, use_gpu: bool = True, **options: Any
) -> DPM:
    """The paper's baseline (Table 3): the ViT-B/16 of ``dpm_vit`` without mask branch."""
    return _build(_BASE, num_classes, loss, pretrained, _without_mask(options))


def vit_baseline_small(
    num_classes: int, loss: str = "softmax", pretrained: bool | str = True, use_gpu: bool = True, **options: Any
) -> DPM:
    """The baseline of ``dpm_vit_small``."""
    return _build(_SMALL, num_classes, loss, pretrained, _without_mask(options))


def vit_baseline_tiny(
    num_classes: int, loss: str = "softmax", pretrained: bool | str = True, use_gpu: bool = True, **options: Any
) -> DPM:
    """The baseline of ``dpm_vit_tiny``."""
    return _build(_TINY, num_classes, loss, pretrained, _without_mask(options))


def _without_mask(options: dict[str, Any]) -> dict[str, Any]:
    # mask_blocks and mask_pool are taken and dropped, so that one config serves a model and its baseline
    return {**{key: value for key, value in options.items() if key != "mask_pool"}, "mask_blocks": ()}


def _build(backbone: str, num_classes: int, loss: str, pretrained: bool | str, options: dict[str, Any]) -> DPM:
    model = DPM(num_classes, loss, **{"backbone": backbone, **options})
    if pretrained:
        load_pretrained(model.backbone, pretrained)
    return model


MODELS = {
    build.__name__: build
    for build in (dpm_vit, dpm_vit_small, dpm_vit_tiny, vit_baseline, vit_baseline_small, vit_baseline_tiny)
}


def by_name(build: Callable[..., DPM]) -> Callable[..., DPM]:
    """``build`` for torchreid's factory, which says nothing of the model's shape.

    A model built without options has ``default_shape = True``: a run's checkpoint may bring its own shape,
    see :func:`dpm_plugin.inference.open_run.load_as_trained`.
    """

    @wraps(build)
    def built(num_classes, loss="softmax", pretrained=True, use_gpu=True, **options):
        model = build(num_classes, loss, pretrained, use_gpu, **options)
        model.default_shape = not options
        return model

    return built
