"""Open a trained model again with its settings: from a run's folder, a checkpoint, or published weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from yacs.config import CfgNode

from dpm_plugin.config import SCHEMA, flat, load_config, model_kwargs
from dpm_plugin.data.manager import CameraRows
from dpm_plugin.engine.run_checkpoints import BEST, FOLDER, LAST
from dpm_plugin.engine.run_record import recorded_cameras, recorded_settings
from dpm_plugin.method.model import DPM
from dpm_plugin.models import MODELS
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import read_json
from dpm_plugin.weights.files import plain_tensors, read_checkpoint, read_state
from dpm_plugin.weights.key_names import to_own_names
from dpm_plugin.weights.load import CAMERAS, load_weights, rows_of
from dpm_plugin.weights.published import local_file, published

#: Checkpoints of a run that have names of their own.
NAMED = {"last": LAST, "best": BEST}


class Trained(NamedTuple):
    """``model`` is in eval mode, ``config`` what it was trained with.

    ``epoch`` is how many epochs it saw and ``cameras`` the cameras it was trained with
    (:func:`~dpm_plugin.evaluation.extract.trained_cameras`); None where the file does not say.
    """

    model: DPM
    config: CfgNode
    epoch: int | None
    cameras: Mapping[str, CameraRows] | None = None


def run_checkpoint(folder: str | Path, name: str) -> Path:
    """The path of the checkpoint "last" or "best" (highest rank-1, then mAP) of the run in ``folder``; or DPMError."""
    if name not in NAMED:
        raise DPMError(f"checkpoint '{name}' is unknown; choose one of {', '.join(NAMED)}")
    if not Path(folder).expanduser().is_dir():
        raise DPMError(f"checkpoint '{name}' is one of a run's folder (data.save_dir), which '{folder}' is not")
    return Path(folder).expanduser() / FOLDER / NAMED[name]


def open_trained(
    source: str | Path, device: str | torch.device = "cpu", config_file: str | Path | None = None
) -> Trained:
    """Open a run or a single checkpoint.

    Args:
        source: a run's folder (``data.save_dir``), a checkpoint of one, ``zoo:NAME`` for published weights, which bring
            their settings, or, with ``config_file``, any file that :func:`dpm_plugin.load_weights` reads.
        device: of the model. Default: "cpu".
        config_file: yaml file with the settings of a checkpoint that does not say them. Default: None.

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
    content = read_checkpoint(source)
    if not _is_of_plugin(source, content):
        run = "finished run of dpm train with one of the plugin's models"
        raise DPMError(f"'{source}' lies in no {run}, so its settings are not known; name a config file as well")
    return _open(_folder_of(source), source, content, device)


def open_run(
    folder: str | Path,
    device: str | torch.device = "cpu",
    root: str | Path | None = None,
    checkpoint: str | Path = "last",
) -> Trained:
    """Open what ``dpm train`` left in ``folder``, its ``data.save_dir``.

    The settings are those that the checkpoint was trained with; for one of 0.1.0, those in ``results.json``.

    Args:
        device: of the model. Default: "cpu".
        root: data root of the opened configuration. Default: the run's.
        checkpoint: "last", "best" or a path. Default: "last".

    Raises:
        DPMError: a file is missing or unreadable, or the run's model is not one of the plugin's.
    """
    folder = Path(folder)
    path = folder / FOLDER / NAMED[str(checkpoint)] if str(checkpoint) in NAMED else Path(checkpoint)
    return _open(folder, path, read_checkpoint(path) if path.is_file() else {}, device, root)


def run_settings(source: str | Path, checkpoint: str = "last") -> tuple[Path, dict[str, Any]]:
    """A checkpoint of a run of any model, and {key: value} of the settings that it was trained with.

    Args:
        source: the run's folder (``data.save_dir``), or a checkpoint in it.
        checkpoint: "last" or "best", where ``source`` is a folder. Default: "last".

    Raises:
        DPMError: a file is missing or unreadable, or the run did not write its settings.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise DPMError(f"'{source}' does not exist; name a run's folder (data.save_dir) or a checkpoint in one")
    path = run_checkpoint(path, checkpoint) if path.is_dir() else path
    return path, recorded_settings(read_checkpoint(path)) or _settings(_folder_of(path))


def _open(
    folder: Path, path: Path, content: Any, device: str | torch.device, root: str | Path | None = None
) -> Trained:
    """The run in ``folder`` by its checkpoint ``path``, whose ``content`` is empty where there is no such file."""
    recorded = recorded_settings(content)
    overrides = (recorded or _settings(folder)) | {"data.save_dir": str(folder)}
    if root is not None:
        overrides["data.root"] = str(root)
    config = load_config(overrides=overrides)
    if config.model.name not in MODELS:
        raise DPMError(f"'{folder}' trained '{config.model.name}'; this needs one of {', '.join(sorted(MODELS))}")
    content = content or read_checkpoint(path)  # which says that there is no file
    try:
        state, epoch = plain_tensors(content["state_dict"], path), int(content["epoch"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DPMError(f"'{path}' is no checkpoint of dpm train: it lacks {error}") from error
    model = _build(config, state, f"'{path}'")
    own = model.state_dict()
    wrong = [
        key for key in {**own, **state} if key not in own or key not in state or own[key].shape != state[key].shape
    ]
    settings = "the settings" if recorded else "results.json"
    _refuse_unfit(wrong, f"'{folder}': {settings} and {path.parent.name}/{path.name}")
    model.load_state_dict(state)
    return Trained(model.to(device).eval(), config, epoch, recorded_cameras(content))


def load_as_trained(model: DPM, path: str | Path) -> None:
    """What torchreid's ``load_pretrained_weights`` does for the plugin's models.

    torchreid's extractors, trackers and scripts build a model by its name alone, which says nothing of stride, cameras
    or mask blocks. Such a model, changed in place, takes these from the run that the checkpoint lies in, so that it
    computes what was trained. Every other model, and every other file, is left to :func:`dpm_plugin.load_weights`.
    Raises DPMError for a file that is unreadable or of another model.
    """
    content = read_checkpoint(path) if getattr(model, "default_shape", False) else None
    if content is None or not _is_of_plugin(path, content):
        load_weights(model, path)
        return
    folder = _folder_of(path)
    opened = _open(folder, Path(path).expanduser(), content, next(model.parameters()).device)
    trained = opened.model
    if (trained.backbone.backbone_name, trained.has_mask) != (model.backbone.backbone_name, model.has_mask):
        raise DPMError(f"'{path}' is of '{opened.config.model.name}', not of the model that was built; build that one")
    for part in ("backbone", "part_features", "mask_blocks", "mask_generator", "neck"):
        setattr(model, part, getattr(trained, part))
    if trained.num_classes == model.num_classes:  # else it is to be trained anew
        model.classifier = trained.classifier
    model.train(model.training)
    print(f"=> '{path}': as trained by '{folder}' ({opened.epoch} epochs)")


def _folder_of(checkpoint: str | Path) -> Path:
    return Path(checkpoint).expanduser().absolute().parent.parent


def _is_of_plugin(path: str | Path, content: Any) -> bool:
    """Whether a checkpoint of this content at ``RUN/model/<name>`` is of a run of one of the plugin's models."""
    try:
        settings = recorded_settings(content) or _settings(_folder_of(path))
        return settings.get("model.name") in MODELS
    except (DPMError, TypeError):
        return False


def _settings(folder: Path) -> dict[str, Any]:
    """{key: value} of the configuration in a run's results.json."""
    try:
        config = read_json(folder / "results.json")["run"]["config"]
        return {key: value for key, value in flat(config) if key in SCHEMA}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"results.json with its settings cannot be read ({error})"
        raise DPMError(f"'{folder}' is no finished run of dpm train: {why}") from error


def _build(config: CfgNode, state: dict[str, torch.Tensor], source: str) -> DPM:
    """The untrained model of these settings, with the classes and cameras of ``state``, read from ``source``."""
    if "classifier.weight" not in state:
        raise DPMError(f"{source} is no checkpoint of '{config.model.name}': it lacks 'classifier.weight'")
    arguments = model_kwargs(config, *(rows_of(state, name, source) for name in ("classifier.weight", CAMERAS)))
    return MODELS[config.model.name](**{**arguments, "pretrained": False})


def _open_checkpoint(path: str | Path, config: CfgNode, settings: str | Path, device: str | torch.device) -> Trained:
    """Open a checkpoint of any naming with a configuration, which comes from ``settings``."""
    if config.model.name not in MODELS:
        raise DPMError(f"'{settings}' is of '{config.model.name}'; this needs one of {', '.join(sorted(MODELS))}")
    path = local_file(path)
    named = to_own_names(read_state(path))
    model = _build(config, named.state, f"'{path}' ({named.naming} names)")
    report = load_weights(model, path)
    _refuse_unfit(report.missing + report.skipped, f"'{path}' and '{settings}'")
    return Trained(model.to(device).eval(), config, None)


def _refuse_unfit(wrong: Sequence[str], files: str) -> None:
    """Raise DPMError where tensors ``wrong`` of a model do not fit its settings, which lie in ``files``."""
    if wrong:
        first = f"{len(wrong)} tensors do not fit, the first is '{wrong[0]}'"
        raise DPMError(f"{files} are of different models: {first}")
