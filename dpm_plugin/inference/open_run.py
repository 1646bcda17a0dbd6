"""A trained model, opened again with its settings: from a run's folder, or from a checkpoint."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from yacs.config import CfgNode

from dpm_plugin.config import SCHEMA, flat, load_config, model_kwargs
from dpm_plugin.models import MODELS
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.weights.files import plain_tensors, read_checkpoint, read_state
from dpm_plugin.weights.key_names import to_own_names
from dpm_plugin.weights.load import load_weights
from dpm_plugin.weights.published import local_file, published


class Trained(NamedTuple):
    """``model`` is in eval mode, ``config`` what it was trained with, ``epoch`` how many epochs it saw.

    ``epoch`` is None where the checkpoint does not say.
    """

    model: torch.nn.Module
    config: CfgNode
    epoch: int


def open_trained(source, device="cpu", config_file=None):
    """Open a run or a single checkpoint.

    Args:
        source: a run's folder (``data.save_dir``), a checkpoint in one (``RUN/model/...``), ``zoo:NAME`` for
            published weights, which bring the settings of their ``configs/released/``, or, with ``config_file``,
            any file that :func:`dpm_plugin.load_weights` reads.
        device: to put the model on. Default: "cpu".
        config_file: yaml file with the settings of a checkpoint that lies in no run. Default: None.

    Returns:
        Trained.

    Raises:
        DPMError: nothing there, no settings for it, or settings of another model.
    """
    if config_file is not None:
        return _open_checkpoint(source, load_config(str(config_file)), config_file, device)
    from_zoo = published(source)
    if from_zoo is not None:
        return _open_checkpoint(source, load_config(overrides=from_zoo.settings), "configs/released", device)
    source = Path(source).expanduser()
    if not source.exists():
        raise DPMError(f"'{source}' does not exist; name a run's folder (data.save_dir) or a checkpoint in one")
    if source.is_dir():
        return open_run(source, device)
    folder = run_of(source)
    if folder is None:
        raise DPMError(
            f"'{source}' lies in no finished run of tools/main.py with one of the plugin's models, so its "
            "settings are not known; name a config file as well"
        )
    return open_run(folder, device, checkpoint=source)


def open_run(folder, device="cpu", root=None, checkpoint=None):
    """Open what ``tools/main.py`` left in ``data.save_dir``: ``results.json`` and ``model/last.pth.tar``.

    Args:
        folder: the run's ``data.save_dir``.
        device: to put the model on. Default: "cpu".
        root: data root of the opened configuration; None keeps the run's.
        checkpoint: another one of the run's checkpoints. Default: ``model/last.pth.tar``.

    Returns:
        Trained.

    Raises:
        DPMError: a file is missing or unreadable, or the run's model is not one of the plugin's.
    """
    folder = Path(folder)
    overrides = {key: value for key, value in flat(_settings(folder)) if key in SCHEMA}
    overrides.update({"data.save_dir": str(folder)} | ({} if root is None else {"data.root": str(root)}))
    config = load_config(overrides=overrides)
    if config.model.name not in MODELS:
        raise DPMError(f"'{folder}' trained '{config.model.name}'; this needs one of {', '.join(sorted(MODELS))}")
    path = folder / "model" / "last.pth.tar" if checkpoint is None else Path(checkpoint)
    content = read_checkpoint(path)
    try:
        state, epoch = plain_tensors(content["state_dict"], path), int(content["epoch"])
        model = _build(config, state, path)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DPMError(f"'{path}' is no checkpoint of tools/main.py: it lacks {error}") from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DPMError(
            f"'{folder}': results.json and {path.parent.name}/{path.name} are of different models ({error})"
        ) from error
    return Trained(model.to(device).eval(), config, epoch)


def run_of(checkpoint):
    """The run's folder that ``RUN/model/<checkpoint>`` lies in; None where there is none of a plugin's model."""
    folder = Path(checkpoint).expanduser().absolute().parent.parent
    try:
        name = _settings(folder)["model"]["name"]
    except (DPMError, KeyError, TypeError):
        return None
    return folder if name in MODELS else None


def load_as_trained(model, path):
    """What torchreid's ``load_pretrained_weights`` does for the plugin's models.

    torchreid's extractors, trackers and scripts build a model by its name alone, which says nothing of
    stride, cameras or mask blocks. Such a model takes these from the run that the checkpoint lies in, so that
    it computes what was trained. Every other model, and every other file, is left to
    :func:`dpm_plugin.load_weights`.

    Args:
        model: one of the plugin's models; changed in place.
        path: the checkpoint.

    Raises:
        DPMError: unreadable, or of another model.
    """
    folder = run_of(path) if getattr(model, "default_shape", False) else None
    if folder is None:
        load_weights(model, path)
        return
    trained, config, epoch = open_run(folder, next(model.parameters()).device, checkpoint=path)
    same = (trained.backbone.backbone_name, trained.has_mask) == (model.backbone.backbone_name, model.has_mask)
    if not same:
        raise DPMError(f"'{path}' is of '{config.model.name}', not of the model that was built; build that one")
    for part in ("backbone", "mask_blocks", "mask_generator", "neck"):
        setattr(model, part, getattr(trained, part))
    if trained.num_classes == model.num_classes:  # else it is to be trained anew
        model.classifier = trained.classifier
    model.train(model.training)
    print(f"=> '{path}': as trained by '{folder}' ({epoch} epochs)")


def _settings(folder):
    """The configuration in a run's results.json, as nested dicts."""
    try:
        settings = json.loads((folder / "results.json").read_text(encoding="utf-8"))["run"]["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DPMError(
            f"'{folder}' is no finished run of tools/main.py: results.json with its settings cannot be read ({error})"
        ) from error
    if not isinstance(settings, dict):
        raise DPMError(f"'{folder}/results.json' holds no settings of a run; was it written by tools/main.py?")
    return settings


def _build(config, state, path):
    """The untrained model of these settings, with the classes and cameras of ``state``, read from ``path``."""
    weight, cameras = state["classifier.weight"], state.get("backbone.camera_embedding")
    for name, rows in (("classifier.weight", weight), ("backbone.camera_embedding", cameras)):
        if rows is not None and (rows.dim() != 2 or 0 in rows.shape):  # rows without numbers can be billions
            raise DPMError(
                f"tensor '{name}' in '{path}' has shape {tuple(rows.shape)}, not one row for each class "
                "or camera; the file is damaged"
            )
    arguments = model_kwargs(config, len(weight), 0 if cameras is None else len(cameras))
    return MODELS[config.model.name](**{**arguments, "pretrained": False})


def _open_checkpoint(path, config, config_file, device):
    if config.model.name not in MODELS:
        raise DPMError(f"'{config_file}' is of '{config.model.name}'; this needs one of {', '.join(sorted(MODELS))}")
    path = local_file(path)
    layout, state, _ = to_own_names(read_state(path))
    try:
        model = _build(config, state, path)
    except KeyError as error:
        raise DPMError(
            f"'{path}' ({layout} layout) is no checkpoint of '{config.model.name}': it lacks {error}"
        ) from error
    report = load_weights(model, path)
    wrong = report.missing + report.skipped
    if wrong:
        raise DPMError(
            f"'{path}' and '{config_file}' are of different models: {len(wrong)} tensors do not fit, "
            f"the first is '{wrong[0]}'"
        )
    return Trained(model.to(device).eval(), config, None)
