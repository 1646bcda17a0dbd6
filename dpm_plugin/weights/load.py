"""Put weights into a model: from a checkpoint, with a report on every tensor, or pretrained ones for the encoder."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import timm
from torch import Tensor, nn

from dpm_plugin.method.vit import ViT
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import first_line
from dpm_plugin.weights.conversions import ENCODER, refuse_foreign
from dpm_plugin.weights.files import read_state
from dpm_plugin.weights.key_names import NAMINGS, Renamed, nearest_naming, recognise, to_own_names
from dpm_plugin.weights.published import check_digest, local_file
from dpm_plugin.weights.resize import fit_embeddings

BLOCKS = ENCODER + "blocks."
ONLY_IN_SOME = tuple(ENCODER + name for name in ("norm_pre.", "reg_token"))  # CLIP's, DINOv2's
CLASSIFIER = "classifier."  # of the plugin's models and of torchreid's
CAMERAS = "backbone.camera_embedding"  # (cameras, C)
ENVIRONMENT_VARIABLE = "DPM_PRETRAINED"


class LoadReport(NamedTuple):
    """What ``load_weights`` did, as lists of the model's tensor names (``unused``: the file's).

    Attributes:
        naming: which names the file uses, a key of ``dpm_plugin.weights.key_names.NAMINGS``.
        loaded: taken from the file; with those of ``resized``.
        resized: position or patch embedding of another image size, stride or patch size.
        skipped: in the file with a shape that does not fit, or left out; the model's own stays.
        missing: not in the file; the model's own stays.
        unused: in the file, without a counterpart in the model.
        sizes: {name of a resized tensor: "16x8 to 22x11 patches"}.
    """

    naming: str
    loaded: list[str]
    resized: list[str]
    skipped: list[str]
    missing: list[str]
    unused: list[str]
    sizes: dict[str, str]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for name in ("resized", "skipped", "missing", "unused"):
            tensors = getattr(self, name)
            if tensors:
                shown = [f"{key}: {self.sizes[key]}" if key in self.sizes else key for key in tensors[:4]]
                parts.append(f"{len(tensors)} {name} ({', '.join(shown)}{', ...' if len(tensors) > 4 else ''})")
        return f"{self.naming} checkpoint: " + "; ".join(parts)


def load_weights(model: nn.Module, path: str | Path, sha256: str = "") -> LoadReport:
    """Load a checkpoint with any known tensor names into ``model``, and print the report.

    The names are recognised, see ``dpm_plugin.weights.key_names.NAMINGS``; each plain or under ``state_dict``,
    ``model``, ``module``, ``teacher`` or ``student``, with or without ``module.``, as torch or safetensors file.
    Position and patch embedding are resized to the model's grid. A classifier or camera embedding with another count of
    rows is skipped. A stock torchreid model takes what matches in name and shape, as with torchreid's own loader.

    Args:
        path: a file, or ``zoo:NAME`` for published weights, see :mod:`dpm_plugin.weights.published`.
        sha256: hexadecimal digest that the file must have. Default: "", any.

    Raises:
        DPMError: unreadable, of another digest, nothing in the file fits the model, or its encoder is another one; the
            model stays.
    """
    path = fetched(path, sha256)
    return load_state(model, read_state(path), path)


def fetched(path: str | Path, sha256: str = "") -> str | Path:
    """The local file of :func:`load_weights`'s ``path``; DPMError where it has another digest than ``sha256``."""
    path = local_file(path)
    if sha256:
        check_digest(path, sha256)
    return path


def load_state(
    model: nn.Module, state: dict[str, Tensor], path: str | Path, with_classifier: bool = True
) -> LoadReport:
    """:func:`load_weights` of what was read from ``path`` before; a classifier may be left out (then: skipped)."""
    own = model.state_dict()
    sizes: dict[str, str] = {}
    vit: Any = getattr(model, "backbone", None)
    has_vit = isinstance(vit, ViT)
    if has_vit:
        refuse_foreign(state, f"'{path}'")
    named = to_own_names(state) if has_vit else Renamed(recognise(state), state, [])
    names = list(state)
    state, where = named.state, f"'{path}' ({named.naming} names)"
    _check_numbers(state, own, f"'{path}'")
    has_blocks = any(key.startswith(BLOCKS) for key in state)
    if has_vit and has_blocks:
        _check_encoder(state, own, where, type(model).__name__, named.naming)
        state, sizes = fit_embeddings(state, vit.transformer, square=NAMINGS[named.naming].square, prefix=ENCODER)
    fits = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    if not with_classifier:
        fits = {key: value for key, value in fits.items() if not key.startswith(CLASSIFIER)}
    is_start = any(key != "classifier.weight" and value.dim() for key, value in fits.items())
    if not is_start or (has_vit and not has_blocks):
        hint = f" ({_nearest(names, vit)})" if has_vit and named.naming == "torchreid" else ""
        raise DPMError(f"no tensor of {where} fits this {type(model).__name__}; was it made for another model?{hint}")
    report = LoadReport(
        named.naming,
        loaded=[key for key in own if key in fits],
        resized=[key for key in own if key in sizes and key in fits],
        skipped=[key for key in own if key in state and key not in fits],
        missing=[key for key in own if key not in state],
        unused=[key for key in state if key not in own] + named.unused,
        sizes=sizes,
    )
    model.load_state_dict({**own, **fits})
    print(f"=> '{path}': {report}")
    return report


def rows_of(state: Mapping[str, Tensor], name: str, source: str) -> int:
    """Classes or cameras in a state dict that was read from ``source``: rows of tensor ``name``, 0 where it is missing.

    Raises:
        DPMError: it is no matrix, or empty.
    """
    rows = state.get(name)
    if rows is not None and (rows.dim() != 2 or 0 in rows.shape):  # rows without numbers can be billions
        shape = f"has shape {tuple(rows.shape)}, not one row for each class or camera"
        raise DPMError(f"tensor '{name}' in {source} {shape}; the file is damaged")
    return 0 if rows is None else len(rows)


def _check_numbers(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors of another kind of number than in ``own``, which would be cast in silence, and damaged ones."""
    for key in [key for key in state if key in own]:
        value, dtype, what = state[key], own[key].dtype, f"tensor '{key}' of {source}"
        if (value.dtype.is_floating_point, value.dtype.is_complex) != (dtype.is_floating_point, dtype.is_complex):
            raise DPMError(f"{what} is of {value.dtype}, in the model of {dtype}; it was quantised or damaged")
        if value.is_floating_point() and not value.float().isfinite().all():
            why = "the run diverged or the file is damaged"
            raise DPMError(f"{what} holds NaN or infinity; {why}: take an earlier checkpoint")


def _check_encoder(state: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str, model: str, naming: str) -> None:
    """Refuse the transformer blocks of another encoder, and a norm or tokens before them that only one side has."""
    theirs, ours = (
        {key: tuple(value.shape) for key, value in side.items() if key.startswith((BLOCKS, *ONLY_IN_SOME))}
        for side in (state, own)
    )
    wrong = [key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key)]
    if wrong:
        raise DPMError(
            f"{where} is of another encoder than this {model}'s: {len(wrong)} of its tensors differ, the first is "
            f"'{wrong[0]}' ({theirs.get(wrong[0], 'none')} in the file, {ours.get(wrong[0], 'none')} in the model)"
            f"{_made_for(naming)}"
        )


def _made_for(naming: str) -> str:
    backbone = NAMINGS[naming].backbone
    return f"; {naming} files are made for backbones such as {backbone}" if backbone else ""


def load_pretrained(vit: ViT, pretrained: Literal[True] | str | Path) -> None:
    """Fill the encoder of ``vit``.

    Args:
        pretrained: True for the weights timm names for this backbone, unless the environment variable DPM_PRETRAINED
            names a local file or says "none"; or a local file with any known tensor names (see :func:`load_weights`),
            .pth, .safetensors or (timm's own models) .npz.

    Raises:
        DPMError: the weights can't be had or don't fit; the model is then unusable.
    """
    choice = os.environ.get(ENVIRONMENT_VARIABLE, "") if pretrained is True else os.fspath(pretrained)
    if choice.lower() == "none":
        print(f"=> {ENVIRONMENT_VARIABLE}=none: '{vit.backbone_name}' starts from random weights")
    elif not choice:
        _load_encoder(vit, _timm_state(vit.backbone_name), f"timm's '{vit.backbone_name}'")
    elif os.path.isfile(choice):
        _load_file(vit, choice)
    else:
        source = f" (from {ENVIRONMENT_VARIABLE})" if pretrained is True else ""
        raise DPMError(f"pretrained weight file '{choice}'{source} does not exist")


def _load_file(vit: ViT, path: str | Path) -> None:
    if str(path).endswith(".npz"):  # the original JAX weights, which timm can read
        plain: Any = timm.create_model(vit.backbone_name, pretrained=False, num_classes=0)
        try:
            plain.load_pretrained(str(path))
        except Exception as error:  # numpy, zip and key errors
            raise DPMError(f"'{path}' is no .npz weight file of '{vit.backbone_name}': {error}") from error
        _load_encoder(vit, plain.state_dict(), f"'{path}'")
        return
    content = read_state(path)
    refuse_foreign(content, f"'{path}'")
    named = to_own_names(content)
    state = {key.removeprefix(ENCODER): value for key, value in named.state.items() if key.startswith(ENCODER)}
    if not state:
        looks = _nearest(content, vit) if named.naming == "torchreid" else f"it looks like a {named.naming} checkpoint"
        raise DPMError(f"'{path}' holds no ViT weights ({looks})")
    report = _load_encoder(vit, state, f"'{path}'", named)
    print(f"=> backbone weights from '{path}', {report}")


def _nearest(names: Iterable[str], vit: ViT) -> str:
    return nearest_naming(names, {ENCODER + key: value for key, value in vit.transformer.state_dict().items()})


def _timm_state(name: str) -> dict[str, Tensor]:
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # hub, network, cache and file errors of many libraries end here
        what = f"timm's pretrained weights of '{name}' can't be had ({first_line(error)})"
        raise DPMError(
            f"{what}; go online once, or name a local file by vit.pretrained_file or {ENVIRONMENT_VARIABLE}=FILE, or "
            f"start knowingly from random weights with model.pretrained False or {ENVIRONMENT_VARIABLE}=none"
        ) from error


def _load_encoder(vit: ViT, state: Mapping[str, Tensor], source: str, named: Renamed | None = None) -> LoadReport:
    """Load a timm state dict whole into the encoder, its embeddings resized (:func:`fit_embeddings`).

    Args:
        named: what ``state`` was taken from. Default: None, timm itself.
    """
    named = named or Renamed("timm", {ENCODER + key: value for key, value in state.items()}, [])
    naming, own = NAMINGS[named.naming], vit.transformer.state_dict()
    _check_numbers(state, own, source)
    fits, sizes = fit_embeddings({key: state[key] for key in own if key in state}, vit.transformer, naming.square)
    found = {key: tuple(value.shape) for key, value in fits.items()}
    expected = {key: tuple(value.shape) for key, value in own.items()}
    wrong = [key for key in own if found.get(key) != expected[key]]
    # What the backbone lacks would have changed what the rest computes; blocks after the last are left out on purpose.
    inner = (
        *(f"blocks.{number}." for number in range(vit.depth)),
        *(key.removeprefix(ENCODER) for key in ONLY_IN_SOME),
    )
    extra = [key for key in state if key not in own and key.startswith(inner)]
    if wrong or extra:
        what = f"{len(extra)} tensors of the file have no place in it, the first is '{(extra or [''])[0]}'"
        if wrong:
            first = f"the first is '{wrong[0]}': {found.get(wrong[0], 'missing')}, expected {expected[wrong[0]]}"
            what = f"{len(wrong)} of {len(own)} tensors are missing or of another shape, {first}"
        raise DPMError(f"{source} does not fit backbone '{vit.backbone_name}': {what}{_made_for(named.naming)}")
    vit.transformer.load_state_dict(fits)
    unused = [key for key in named.state if key.removeprefix(ENCODER) not in own] + named.unused
    return LoadReport(named.naming, list(own), [key for key in own if key in sizes], [], [], unused, sizes)
