"""Weights into a model: a checkpoint of any layout with a report, or a pretrained backbone; never silently random."""

import os
from pathlib import Path
from typing import NamedTuple

import timm

from dpm_plugin.method.vit import ViT
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.weights.files import check_numbers, read_state
from dpm_plugin.weights.key_names import recognise, to_own_names
from dpm_plugin.weights.published import local_file
from dpm_plugin.weights.resize import fit_embeddings

ENCODER = "backbone.transformer."
ENVIRONMENT_VARIABLE = "DPM_PRETRAINED"


class LoadReport(NamedTuple):
    """What ``load_weights`` did, as lists of the model's tensor names (``unused``: the file's).

    Attributes:
        layout: see :func:`dpm_plugin.weights.key_names.recognise`.
        loaded: taken from the file; with those of ``resized``.
        resized: position or patch embedding of another image size, stride or patch size.
        skipped: in the file with a shape that does not fit; the model's own stays.
        missing: not in the file; the model's own stays.
        unused: in the file, without a counterpart in the model.
        sizes: {name of a resized tensor: "16x8 to 22x11 patches"}.
    """

    layout: str
    loaded: list
    resized: list
    skipped: list
    missing: list
    unused: list
    sizes: dict

    def __str__(self):
        parts = [f"{len(self.loaded)} tensors loaded"]
        for name in ("resized", "skipped", "missing", "unused"):
            tensors = getattr(self, name)
            if tensors:
                shown = [f"{key}: {self.sizes[key]}" if key in self.sizes else key for key in tensors[:4]]
                parts.append(f"{len(tensors)} {name} ({', '.join(shown)}{', ...' if len(tensors) > 4 else ''})")
        return f"{self.layout} checkpoint: " + "; ".join(parts)


def load_weights(model, path):
    """Load a checkpoint of any known layout into ``model``.

    Layouts are recognised by content: this package's own, the released DPM implementation's,
    TransReID's ViT, and timm's; each plain or under ``state_dict`` or ``model``, with or
    without ``module.``, as torch or safetensors file. Position and patch embedding are resized to the
    model's grid. A classifier or camera embedding with another count of rows is skipped. A
    stock torchreid model takes torchreid's own loader's rule: what matches in name and shape.

    Args:
        path: a file, or ``zoo:NAME`` for published weights, see :mod:`dpm_plugin.weights.published`.

    Returns:
        LoadReport, also printed.

    Raises:
        DPMError: unreadable, nothing in the file fits the model, or its encoder is another one. The model
            is then as it was.
    """
    path = local_file(path)
    state = read_state(path)
    own = model.state_dict()
    layout, unused, sizes = recognise(state), [], {}
    if isinstance(getattr(model, "backbone", None), ViT):
        layout, state, unused = to_own_names(state)
        check_numbers(state, own, f"'{path}'")
        state, sizes = _fit_encoder(state, own, model, layout, path)
    else:
        check_numbers(state, own, f"'{path}'")
    fits = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    if not any(key != "classifier.weight" and value.dim() for key, value in fits.items()):
        raise _fits_nothing(model, layout, path)
    report = LoadReport(
        layout,
        loaded=[key for key in own if key in fits],
        resized=[key for key in own if key in sizes and key in fits],
        skipped=[key for key in own if key in state and key not in fits],
        missing=[key for key in own if key not in state],
        unused=[key for key in state if key not in own] + unused,
        sizes=sizes,
    )
    model.load_state_dict({**own, **fits})
    print(f"=> '{path}': {report}")
    return report


def _fit_encoder(state, own, model, layout, path):
    """(state with embeddings of the model's sizes, sizes of a LoadReport); refuses another encoder's blocks."""
    blocks = ENCODER + "blocks."
    if not any(key.startswith(blocks) for key in state):
        raise _fits_nothing(model, layout, path)
    names = dict.fromkeys(key for key in [*own, *state] if key.startswith(blocks))
    shapes = {key: [tuple(side[key].shape) if key in side else "none" for side in (state, own)] for key in names}
    wrong = [key for key, (theirs, ours) in shapes.items() if theirs != ours]
    if wrong:
        theirs, ours = shapes[wrong[0]]
        raise DPMError(
            f"'{path}' ({layout} layout) is of another encoder than this {type(model).__name__}'s: {len(wrong)} "
            f"tensors of its blocks differ, the first is '{wrong[0]}' ({theirs} in the file, {ours} in the model)"
        )
    encoder = {key.removeprefix(ENCODER): value for key, value in state.items() if key.startswith(ENCODER)}
    encoder, sizes = fit_embeddings(encoder, model.backbone.transformer, square=layout == "timm")
    state = {**state, **{ENCODER + key: value for key, value in encoder.items()}}
    return state, {ENCODER + key: size for key, size in sizes.items()}


def _fits_nothing(model, layout, path):
    return DPMError(
        f"no tensor of '{path}' ({layout} layout) fits this {type(model).__name__}; was it made for another model?"
    )


def load_backbone_file(vit, path):
    """Fill only the encoder from a local file of any known layout (see ``load_weights``)."""
    if str(path).endswith(".npz"):  # the original JAX weights; timm knows their layout
        plain = timm.create_model(vit.backbone_name, pretrained=False, num_classes=0)
        try:
            plain.load_pretrained(str(path))
        except Exception as error:  # numpy, zip and key errors
            raise DPMError(f"'{path}' is no .npz weight file of '{vit.backbone_name}': {error}") from error
        load_state(vit, plain.state_dict(), f"'{path}'")
        return
    named = to_own_names(read_state(path))
    state = {key.removeprefix(ENCODER): value for key, value in named.state.items() if key.startswith(ENCODER)}
    if not state:
        raise DPMError(f"'{path}' holds no ViT weights (it looks like a {named.layout} checkpoint)")
    load_state(vit, state, f"'{path}'", square=named.layout == "timm")
    print(f"=> backbone weights from '{path}' ({named.layout} layout)")


def load_pretrained(vit, pretrained):
    """Fill the encoder ``vit`` (:class:`dpm_plugin.method.vit.ViT`).

    Args:
        pretrained: True for the weights timm names for this backbone, unless the environment
            variable DPM_PRETRAINED names a local file or says "none"; or a local file: a timm or
            a released checkpoint, .pth, .safetensors or (timm's own models) .npz.

    Raises:
        DPMError: the weights can't be had or don't fit; the model is then unusable.
    """
    choice = os.environ.get(ENVIRONMENT_VARIABLE, "") if pretrained is True else os.fspath(pretrained)
    if choice.lower() == "none":
        print(f"=> {ENVIRONMENT_VARIABLE}=none: '{vit.backbone_name}' starts from random weights")
        return
    if choice:
        if not Path(choice).is_file():
            source = f" (from {ENVIRONMENT_VARIABLE})" if pretrained is True else ""
            raise DPMError(f"pretrained weight file '{choice}'{source} does not exist")
        load_backbone_file(vit, choice)
        return
    load_state(vit, _timm_state(vit.backbone_name), f"timm's '{vit.backbone_name}'")


def _timm_state(name):
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # hub, network, cache and file errors of many libraries end here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DPMError(
            f"timm's pretrained weights of '{name}' can't be had ({reason}); go online once, or name a local file "
            f"by vit.pretrained_file or {ENVIRONMENT_VARIABLE}=FILE, or start knowingly from random weights with "
            f"model.pretrained False or {ENVIRONMENT_VARIABLE}=none"
        ) from error


def load_state(vit, state, source, square=True):
    """Load a plain timm state dict into ``vit``, resizing patch and position embeddings to its grid.

    Args:
        square: see :func:`fit_embeddings`.

    Raises:
        DPMError: a tensor is missing or has another shape; names the first.
    """
    transformer = vit.transformer
    own = transformer.state_dict()
    state = {key: value for key, value in state.items() if key in own}
    missing = [key for key in own if key not in state]
    if missing:
        raise DPMError(
            f"{source} does not fit backbone '{vit.backbone_name}': {len(missing)} of {len(own)} tensors are "
            f"missing, the first is '{missing[0]}'"
        )
    check_numbers(state, own, source)
    state, _ = fit_embeddings(state, transformer, square)
    wrong = [key for key in own if own[key].shape != state[key].shape]
    if wrong:
        key = wrong[0]
        raise DPMError(
            f"{source} does not fit backbone '{vit.backbone_name}': '{key}' is {tuple(state[key].shape)}, "
            f"expected {tuple(own[key].shape)}"
        )
    transformer.load_state_dict(state)
