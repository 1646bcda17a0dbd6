"""Loading weights of several layouts into a model, with a report of what happened to each tensor."""
from typing import NamedTuple

import torch

from dpm_plugin import pretrained
from dpm_plugin.checkpoint import read_checkpoint
from dpm_plugin.errors import DPMError

# The released implementation's names, and ours. Its `base.fc` is a classifier nothing uses.
RELEASED_NAMES = (
    ("base.ConvLayer.0.", "mask_generator.conv1."),
    ("base.ConvLayer.2.", "mask_generator.conv2."),
    ("base.ConvLayer.4.", "mask_generator.conv3."),
    ("base.attfc.", "mask_generator.linear."),
    ("base.sie_embed", "backbone.camera_embedding"),
    ("base.fc.", None),
    ("base.", "backbone.transformer."),
    ("bottleneck.", "neck."),
    ("classifier.", "classifier."),
)


class LoadReport(NamedTuple):
    """What ``load_weights`` did, as lists of the model's tensor names (``unused``: the file's)."""

    layout: str
    loaded: list
    resized: list
    skipped: list
    missing: list
    unused: list

    def __str__(self):
        parts = [f"{len(self.loaded)} tensors loaded"]
        for name in ("resized", "skipped", "missing", "unused"):
            tensors = getattr(self, name)
            if tensors:
                shown = ", ".join(tensors[:4]) + (", ..." if len(tensors) > 4 else "")
                parts.append(f"{len(tensors)} {name} ({shown})")
        return f"{self.layout} checkpoint: " + "; ".join(parts)


def load_weights(model, path):
    """Load a checkpoint of any known layout into ``model``.

    Layouts are recognised by content: this package's own, the released DPM implementation's
    (also TransReID's ViT), and timm's; each plain or under ``state_dict`` or ``model``, with or
    without ``module.``. The position embedding is resized to the model's grid. A classifier or
    camera embedding with another count of rows is skipped. A stock torchreid model takes
    torchreid's own loader's rule: what matches in name and shape.

    Returns:
        LoadReport, also printed.

    Raises:
        DPMError: unreadable, or nothing in the file fits the model.
    """
    state, layout = to_own_names(read_state(path), path)
    own = model.state_dict()
    transformer = getattr(getattr(model, "backbone", None), "transformer", None)
    report = LoadReport(layout, [], [], [], [], [key for key in state if key not in own])
    new = {}
    for key, target in own.items():
        value = state.get(key)
        if value is None:
            report.missing.append(key)
            continue
        if key.endswith("pos_embed") and transformer is not None and value.shape != target.shape:
            grid = _guess_grid(value, transformer, square=layout == "timm")
            value = pretrained.resize_position_embedding(value, transformer, grid)
            report.resized.append(key)
        if value.shape != target.shape:
            report.skipped.append(key)
            continue
        report.loaded.append(key)
        new[key] = value
    if not any(key not in ("classifier.weight",) and own[key].dim() > 0 for key in report.loaded):
        raise DPMError(
            f"no tensor of '{path}' ({layout} layout) fits this {type(model).__name__}; was it made for another model?"
        )
    model.load_state_dict({**own, **new})
    print(f"=> '{path}': {report}")
    return report


def read_state(path):
    """The tensors of a checkpoint as a flat dict, wrappers and ``module.`` prefixes removed."""
    state = read_checkpoint(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()) or not state:
        raise DPMError(f"'{path}' holds no state dict of tensors")
    return {key.removeprefix("module."): value for key, value in state.items()}


def to_own_names(state, path):
    """Rename a state dict of any known layout; returns (state, layout name)."""
    if any(key.startswith("base.blocks.") for key in state):
        return rename_released(state), "released"
    if "patch_embed.proj.weight" in state:
        return {f"backbone.transformer.{key}": value for key, value in state.items()}, "timm"
    layout = "dpm_plugin" if any(key.startswith("backbone.transformer.") for key in state) else "torchreid"
    return state, layout


def rename_released(state):
    """Keys of the released implementation to ours; tensors nothing uses are left out."""
    renamed = {}
    for key, value in state.items():
        for old, new in RELEASED_NAMES:
            if key.startswith(old):
                if new is not None:
                    renamed[new + key[len(old):]] = value.squeeze(1) if old == "base.sie_embed" else value
                break
    return renamed


def _guess_grid(embedding, transformer, square):
    """The (h, w) a position embedding was made for: a file does not say.

    A timm file's grid is square; otherwise the split of the patch count whose shape is
    nearest to this model's own grid.
    """
    prefix = 0 if transformer.no_embed_class else transformer.num_prefix_tokens
    patches = embedding.shape[1] - prefix
    if square:
        return None
    height, width = transformer.patch_embed.grid_size
    splits = [(h, patches // h) for h in range(1, patches + 1) if patches % h == 0]

    def mismatch(split):
        ratio = (split[0] / split[1]) / (height / width)
        return max(ratio, 1 / ratio)

    return min(splits, key=mismatch)


def load_backbone_file(vit, path):
    """Fill only the encoder from a local file of any known layout (see ``load_weights``)."""
    if str(path).endswith(".npz"):  # the original JAX weights; timm knows their layout
        import timm

        plain = timm.create_model(vit.backbone_name, pretrained=False, num_classes=0)
        try:
            plain.load_pretrained(str(path))
        except Exception as error:  # numpy, zip and key errors
            raise DPMError(f"'{path}' is no .npz weight file of '{vit.backbone_name}': {error}") from error
        pretrained.load_state(vit, plain.state_dict(), f"'{path}'")
        return
    state, layout = to_own_names(read_state(path), path)
    prefix = "backbone.transformer."
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not state:
        raise DPMError(f"'{path}' holds no ViT weights (it looks like a {layout} checkpoint)")
    grid = None
    if "pos_embed" in state:
        grid = _guess_grid(state["pos_embed"], vit.transformer, square=layout == "timm")
    pretrained.load_state(vit, state, f"'{path}'", grid)
    print(f"=> backbone weights from '{path}' ({layout} layout)")
