"""A finished run's folder, opened again: its settings, its trained model and its features."""
import json
from pathlib import Path
from typing import NamedTuple

import torch
from yacs.config import CfgNode

from dpm_plugin.checkpoint import read_checkpoint
from dpm_plugin.config import SCHEMA, flat, load_config, model_kwargs
from dpm_plugin.errors import DPMError
from dpm_plugin.variants import MODELS

__all__ = ["Trained", "open_run"]


class Trained(NamedTuple):
    """``model`` is in eval mode, ``config`` what it was trained with, ``epoch`` how many epochs it saw."""

    model: torch.nn.Module
    config: CfgNode
    epoch: int


def open_run(folder, device="cpu", root=None):
    """Open what ``tools/main.py`` left in ``data.save_dir``: ``results.json`` and ``model/last.pth.tar``.

    Args:
        folder: the run's ``data.save_dir``.
        device: to put the model on. Default: "cpu".
        root: data root of the opened configuration; None keeps the run's.

    Returns:
        Trained.

    Raises:
        DPMError: a file is missing or unreadable, or the run's model is not one of the plugin's.
    """
    folder = Path(folder)
    try:
        settings = json.loads((folder / "results.json").read_text(encoding="utf-8"))["run"]["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DPMError(
            f"'{folder}' is no finished run of tools/main.py: results.json with its settings cannot be read ({error})"
        ) from error
    if not isinstance(settings, dict):
        raise DPMError(f"'{folder}/results.json' holds no settings of a run; was it written by tools/main.py?")
    overrides = {key: value for key, value in flat(settings) if key in SCHEMA}
    overrides.update({"data.save_dir": str(folder)} | ({} if root is None else {"data.root": str(root)}))
    config = load_config(overrides=overrides)
    if config.model.name not in MODELS:
        raise DPMError(f"'{folder}' trained '{config.model.name}'; this needs one of {', '.join(sorted(MODELS))}")
    path = folder / "model" / "last.pth.tar"
    checkpoint = read_checkpoint(path)
    try:
        state, epoch = checkpoint["state_dict"], checkpoint["epoch"]
    except (KeyError, TypeError) as error:
        raise DPMError(f"'{path}' is no checkpoint of tools/main.py: it lacks {error}") from error
    cameras = state.get("backbone.camera_embedding")
    arguments = model_kwargs(config, len(state["classifier.weight"]), 0 if cameras is None else len(cameras))
    model = MODELS[config.model.name](**{**arguments, "pretrained": False})
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DPMError(f"'{folder}': results.json and model/last.pth.tar are of different models ({error})") from error
    return Trained(model.to(device).eval(), config, epoch)
