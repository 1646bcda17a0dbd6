"""Open a trained model again with its settings: from a run's folder, a checkpoint, or published weights."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from yacs.config import CfgNode

from dpm_plugin.config import SCHEMA, flat, load_config, model_kwargs
from dpm_plugin.method.model import DPM
from dpm_plugin.models import MODELS
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.weights.files import plain_tensors, read_checkpoint, read_state
from dpm_plugin.weights.key_names import to_own_names
from dpm_plugin.weights.load import load_weights
from dpm_plugin.weights.published import local_file, published


class Trained(NamedTuple):
    """``model`` is in eval mode, ``config`` what it was trained with, ``epoch`` how many epochs it saw, if known."""

    model: DPM
    config: CfgNode
    epoch: int | None


def open_trained(
    source: str | Path, device: str | torch.device = "cpu", config_file: str | Path | None = None
) -> Trained:
    """Open a run or a single checkpoint.

    Args:
        source: a run's folder (``data.save_dir``), a checkpoint in one (``RUN/model/...``), ``zoo:NAME`` for
            published weights, which bring their settings, or, with ``config_file``, any file that
            :func:`dpm_plugin.load_weights` reads.
        device: of the model. Default: "cpu".
        config_file: yaml file with the settings of a checkpoint that lies in no run. Default: None.

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
    folder = _run_of(source)
    if folder is None:
        run = "finished run of tools/main.py with one of the plugin's models"
        raise DPMError(f"'{source}' lies in no {run}, so its settings are not known; name a config file as well")
    return open_run(folder, device, checkpoint=source)


def open_run(
    folder: str | Path,
    device: str | torch.device = "cpu",
    root: str | Path | None = None,
    checkpoint: str | Path | None = None,
) -> Trained:
    """Open what ``tools/main.py`` left in ``folder``, its ``data.save_dir``: ``results.json`` and a checkpoint.

    Args:
        device: of the model. Default: "cpu".
        root: data root of the opened configuration. Default: the run's.
        checkpoint: Default: ``model/last.pth.tar``.

    Raises:
        DPMError: a file is missing or unreadable, or the run's model is not one of the plugin's.
    """
    folder = Path(folder)
    overrides = {key: value for key, value in flat(_settings(folder)) if key in SCHEMA}
    overrides["data.save_dir"] = str(folder)
    if root is not None:
        overrides["data.root"] = str(root)
    config = load_config(overrides=overrides)
    if config.model.name not in MODELS:
        raise DPMError(f"'{folder}' trained '{config.model.name}'; this needs one of {', '.join(sorted(MODELS))}")
    path = folder / "model" / "last.pth.tar" if checkpoint is None else Path(checkpoint)
    content = read_checkpoint(path)
    try:
        state, epoch = plain_tensors(content["state_dict"], path), int(content["epoch"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DPMError(f"'{path}' is no checkpoint of tools/main.py: it lacks {error}") from error
    model = _build(config, state, f"'{path}'")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        files = f"results.json and {path.parent.name}/{path.name}"
        raise DPMError(f"'{folder}': {files} are of different models ({error})") from error
    return Trained(model.to(device).eval(), config, epoch)


def load_as_trained(model: DPM, path: str | Path) -> None:
    """What torchreid's ``load_pretrained_weights`` does for the plugin's models.

    torchreid's extractors, trackers and scripts build a model by its name alone, which says nothing of stride, cameras
    or mask blocks. Such a model, changed in place, takes these from the run that the checkpoint lies in, so that it
    computes what was trained. Every other model, and every other file, is left to :func:`dpm_plugin.load_weights`.
    Raises DPMError for a file that is unreadable or of another model.
    """
    folder = _run_of(path) if getattr(model, "default_shape", False) else None
    if folder is None:
        load_weights(model, path)
        return
    trained, config, epoch = open_run(folder, next(model.parameters()).device, checkpoint=path)
    if (trained.backbone.backbone_name, trained.has_mask) != (model.backbone.backbone_name, model.has_mask):
        raise DPMError(f"'{path}' is of '{config.model.name}', not of the model that was built; build that one")
    for part in ("backbone", "mask_blocks", "mask_generator", "neck"):
        setattr(model, part, getattr(trained, part))
    if trained.num_classes == model.num_classes:  # else it is to be trained anew
        model.classifier = trained.classifier
    model.train(model.training)
    print(f"=> '{path}': as trained by '{folder}' ({epoch} epochs)")


def _run_of(checkpoint: str | Path) -> Path | None:
    """The run's folder that ``RUN/model/<checkpoint>`` lies in; None where there is none of a plugin's model."""
    folder = Path(checkpoint).expanduser().absolute().parent.parent
    try:
        return folder if _settings(folder)["model"]["name"] in MODELS else None
    except (DPMError, KeyError, TypeError):
        return None


def _settings(folder: Path) -> dict[str, Any]:
    """The configuration in a run's results.json, as nested dicts."""
    try:
        return dict(json.loads((folder / "results.json").read_text(encoding="utf-8"))["run"]["config"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"results.json with its settings cannot be read ({error})"
        raise DPMError(f"'{folder}' is no finished run of tools/main.py: {why}") from error


def _build(config: CfgNode, state: dict[str, torch.Tensor], source: str) -> DPM:
    """The untrained model of these settings, with the classes and cameras of ``state``, read from ``source``."""
    if "classifier.weight" not in state:
        raise DPMError(f"{source} is no checkpoint of '{config.model.name}': it lacks 'classifier.weight'")
    counts = []
    for name in ("classifier.weight", "backbone.camera_embedding"):  # (N, D), (cameras, C)
        rows = state.get(name)
        if rows is not None and (rows.dim() != 2 or 0 in rows.shape):  # rows without numbers can be billions
            shape = f"has shape {tuple(rows.shape)}, not one row for each class or camera"
            raise DPMError(f"tensor '{name}' in {source} {shape}; the file is damaged")
        counts.append(0 if rows is None else len(rows))
    arguments = model_kwargs(config, *counts)
    return MODELS[config.model.name](**{**arguments, "pretrained": False})


def _open_checkpoint(path: str | Path, config: CfgNode, settings: str | Path, device: str | torch.device) -> Trained:
    """Open a checkpoint of any naming with a configuration, which comes from ``settings``."""
    if config.model.name not in MODELS:
        raise DPMError(f"'{settings}' is of '{config.model.name}'; this needs one of {', '.join(sorted(MODELS))}")
    path = local_file(path)
    named = to_own_names(read_state(path))
    model = _build(config, named.state, f"'{path}' ({named.naming} names)")
    report = load_weights(model, path)
    wrong = report.missing + report.skipped
    if wrong:
        first = f"{len(wrong)} tensors do not fit, the first is '{wrong[0]}'"
        raise DPMError(f"'{path}' and '{settings}' are of different models: {first}")
    return Trained(model.to(device).eval(), config, None)
