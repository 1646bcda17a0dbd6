"""The models that torchreid users name with ``-m``: functions in the style of its own factory.

Args of each:
    num_classes: training identities.
    loss: "softmax", "triplet" or "dpm".
    pretrained: True, False or a file, see :func:`dpm_plugin.weights.load.load_pretrained`.
    use_gpu: unused; torchreid passes it.
    options: those of :class:`~dpm_plugin.method.model.DPM`, and ``backbone``, another timm ViT.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from dpm_plugin.method.model import DPM
from dpm_plugin.weights.load import load_pretrained

_BASE = "vit_base_patch16_224.orig_in21k_ft_in1k"  # the original ViT-B/16 weights, as in the paper
_SMALL = "vit_small_patch16_224.augreg_in21k_ft_in1k"
_TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
PARTS = 6  # stripes of dpm_vit_parts and its smaller ones


def _model(name: str, backbone: str, meaning: str, has_mask: bool = True, parts: int = 0) -> Callable[..., DPM]:
    def build(
        num_classes: int, loss: str = "softmax", pretrained: bool | str = True, use_gpu: bool = True, **options: Any
    ) -> DPM:
        if not has_mask:  # mask_blocks and mask_pool are taken and dropped: one config serves a model and its baseline
            options = {**{key: value for key, value in options.items() if key != "mask_pool"}, "mask_blocks": ()}
        options["parts"] = options.get("parts") or parts
        model = DPM(num_classes, loss, **{"backbone": backbone, **options})
        if pretrained:
            load_pretrained(model.backbone, pretrained)
        return model

    build.__name__, build.__qualname__, build.__doc__ = name, name, meaning
    return build


dpm_vit = _model("dpm_vit", _BASE, "DPM on ViT-B/16, 86 M parameters without the mask generator.")
dpm_vit_small = _model("dpm_vit_small", _SMALL, "DPM on ViT-S/16 (384 channels).")
dpm_vit_tiny = _model("dpm_vit_tiny", _TINY, "DPM on ViT-Ti/16 (192 channels).")
dpm_vit_parts = _model("dpm_vit_parts", _BASE, "dpm_vit with features of 6 stripes, beyond the paper.", parts=PARTS)
dpm_vit_parts_small = _model("dpm_vit_parts_small", _SMALL, "dpm_vit_small with features of 6 stripes.", parts=PARTS)
dpm_vit_parts_tiny = _model("dpm_vit_parts_tiny", _TINY, "dpm_vit_tiny with features of 6 stripes.", parts=PARTS)
vit_baseline = _model("vit_baseline", _BASE, "The paper's baseline (Table 3): dpm_vit without mask branch.", False)
vit_baseline_small = _model("vit_baseline_small", _SMALL, "The baseline of dpm_vit_small.", False)
vit_baseline_tiny = _model("vit_baseline_tiny", _TINY, "The baseline of dpm_vit_tiny.", False)

_BASELINES = (vit_baseline, vit_baseline_small, vit_baseline_tiny)
_DPM = (dpm_vit, dpm_vit_small, dpm_vit_tiny, dpm_vit_parts, dpm_vit_parts_small, dpm_vit_parts_tiny)
MODELS = {build.__name__: build for build in (*_DPM, *_BASELINES)}
BASELINES = {build.__name__ for build in _BASELINES}  # names of those without mask branch


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
