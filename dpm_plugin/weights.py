"""Loading weights of several layouts into a model, with a report of what happened to each tensor."""
from typing import NamedTuple

from dpm_plugin import pretrained
from dpm_plugin.checkpoint import check_numbers, read_state
from dpm_plugin.errors import DPMError
from dpm_plugin.layouts import recognise, to_own_names
from dpm_plugin.vit import ViT
from dpm_plugin.zoo import local_file

__all__ = ["LoadReport", "load_backbone_file", "load_weights"]

ENCODER = "backbone.transformer."


class LoadReport(NamedTuple):
    """What ``load_weights`` did, as lists of the model's tensor names (``unused``: the file's).

    Attributes:
        layout: see :func:`dpm_plugin.layouts.recognise`.
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
        path: a file, or ``zoo:NAME`` for published weights, see :mod:`dpm_plugin.zoo`.

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
    encoder, sizes = pretrained.fit_embeddings(encoder, model.backbone.transformer, square=layout == "timm")
    state = {**state, **{ENCODER + key: value for key, value in encoder.items()}}
    return state, {ENCODER + key: size for key, size in sizes.items()}


def _fits_nothing(model, layout, path):
    return DPMError(
        f"no tensor of '{path}' ({layout} layout) fits this {type(model).__name__}; was it made for another model?"
    )


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
    named = to_own_names(read_state(path))
    state = {key.removeprefix(ENCODER): value for key, value in named.state.items() if key.startswith(ENCODER)}
    if not state:
        raise DPMError(f"'{path}' holds no ViT weights (it looks like a {named.layout} checkpoint)")
    pretrained.load_state(vit, state, f"'{path}'", square=named.layout == "timm")
    print(f"=> backbone weights from '{path}' ({named.layout} layout)")
