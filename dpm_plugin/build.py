"""Build the parts of one run from its configuration: data, model, optimizer, schedule, engine; resume it.

torchreid's own models keep torchreid's optimizers and engines; the plugin's models use the plugin's.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn
from yacs.config import CfgNode

from dpm_plugin.config import arguments as settings
from dpm_plugin.config import check_ignored
from dpm_plugin.data import DPMImageDataManager
from dpm_plugin.data.datasets import torchreid_sets
from dpm_plugin.data.manager import CameraRows
from dpm_plugin.data.sharing import check_same_data
from dpm_plugin.distributed.processes import ALONE, Processes
from dpm_plugin.distributed.sync_bn import synchronise_batch_norm
from dpm_plugin.engine.engine import ImageDPMEngine
from dpm_plugin.engine.people import digest, recorded_people, tell_of_classifier
from dpm_plugin.engine.run_checkpoints import FOLDER, newest_checkpoint, restore
from dpm_plugin.engine.run_record import has_dense_cameras, recorded_cameras
from dpm_plugin.engine.stock import SoftmaxEngine, TripletEngine
from dpm_plugin.engine.testing import EvaluationOptions
from dpm_plugin.engine.training import TrainingMixin
from dpm_plugin.engine.training_options import TrainingOptions
from dpm_plugin.evaluation.metric import check_test_set
from dpm_plugin.method import recipe
from dpm_plugin.method.losses import DPMLoss
from dpm_plugin.models import BASELINES, MODELS
from dpm_plugin.torchreid_host import data, engine, model_names, models, video_dataset_classes, weights_by_plain_http
from dpm_plugin.torchreid_host import optim as stock_optim
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import first_line, unknown
from dpm_plugin.weights.files import read_checkpoint, state_of
from dpm_plugin.weights.key_names import to_own_names
from dpm_plugin.weights.load import CAMERAS, fetched, load_state, rows_of

DataManager: TypeAlias = data.ImageDataManager | data.VideoDataManager


class Weights(NamedTuple):
    """What is in the file of ``model.load_weights``: its tensors, and what it says of its training."""

    path: str | Path
    state: dict[str, torch.Tensor]
    cameras: Mapping[str, CameraRows] | None
    has_dense_cameras: bool
    people: str | None  # see recorded_people


def check_names(config: CfgNode, processes: Processes = ALONE) -> None:
    """Refuse an unknown model, and one that does not go with the other settings, before loading anything.

    The DPMError names the nearest known model, or the key to change. ``processes``: those of the run, here and below.
    """
    name, train, test = config.model.name, config.train, config.test
    if name not in model_names():
        raise unknown("model (model.name)", name, model_names())
    if processes.size > 1 and (name not in MODELS or config.loss.name != "dpm"):
        what = f"'{name}' with {config.loss.name}; start it without torchrun"
        raise DPMError(f"several processes train the plugin's models with loss.name dpm only, not {what}")
    has_weights = config.model.load_weights or config.model.resume or train.resume
    if config.test.evaluate and not has_weights and (name in MODELS or not config.model.pretrained):
        what = "model.load_weights FILE, or train.resume auto for the run in data.save_dir"
        raise DPMError(f"test.evaluate True would evaluate random weights; give {what}")
    if train.patience and (train.max_epoch and test.eval_freq < 1 or config.data.type == "video"):
        what = "set test.eval_freq too" if config.data.type == "image" else "video data have none here"
        raise DPMError(f"train.patience {train.patience} counts evaluations while training: {what}")
    if name not in MODELS:
        if train.freeze_blocks:
            raise DPMError(f"train.freeze_blocks is for the plugin's models, not '{name}'; see train.open_layers")
        if config.loss.name == "dpm":
            raise DPMError(
                f"loss.name dpm needs one of the plugin's models ({', '.join(sorted(MODELS))}), "
                f"not '{name}'; set loss.name softmax or triplet"
            )
        if train.optim == "adamw" or train.bias_lr_mult != 1 or train.optim_form != "auto":
            what = "train.optim adamw, train.bias_lr_mult other than 1 and train.optim_form other than auto"
            raise DPMError(f"{what} are for the plugin's models, not '{name}'")
    elif config.data.type == "video":
        raise DPMError(f"'{name}' takes single images; set data.type image")
    elif train.staged_lr:
        what = f"tokens and position embedding of '{name}'"
        raise DPMError(f"train.staged_lr would leave {what} out of the optimizer; set it to False")
    check_ignored(config, has_mask=name in MODELS.keys() - BASELINES and config.loss.name == "dpm")


def build_datamanager(config: CfgNode, processes: Processes = ALONE, dense_cameras: bool = True) -> DataManager:
    """``DPMImageDataManager``, or torchreid's ``VideoDataManager``, of data sets that can be used as configured.

    ``dense_cameras``: of the former, where training tells the model the cameras.
    """
    arguments = settings.datamanager_kwargs(config)
    if config.data.type == "image":
        arguments["dense_cameras"] = dense_cameras and config.loss.name == "dpm"
        with processes.main_first():
            datamanager = DPMImageDataManager(**arguments, processes=processes)
        check_same_data(datamanager, processes)
        for name, parts in datamanager.test_dataset.items():
            check_test_set(name, parts, max(config.test.ranks), config.cuhk03.use_metric_cuhk03)
        return datamanager
    known = video_dataset_classes()
    for name in config.data.sources + config.data.targets:
        if name not in known:
            raise unknown("video data set (data.sources, data.targets)", name, known)
        torchreid_sets.check_present(name, known[name], config.data.root)
    try:
        return data.VideoDataManager(**arguments)
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        # So torchreid reports a missing folder, a failed download or a batch that cannot be filled.
        names = f"{config.data.sources} -> {config.data.targets}"
        raise DPMError(f"video data sets {names} under '{config.data.root}' cannot be loaded: {error}") from error


def read_weights(config: CfgNode) -> Weights | None:
    """The file of ``model.load_weights``, if any; DPMError where it is unreadable or of another digest."""
    if not config.model.load_weights:
        return None
    path = fetched(config.model.load_weights, config.model.load_sha256)
    content = read_checkpoint(path)
    of_training = recorded_cameras(content), has_dense_cameras(content), recorded_people(content)
    return Weights(path, state_of(content, path), *of_training)


def build_model(
    config: CfgNode, datamanager: DataManager, processes: Processes = ALONE, weights: Weights | None = None
) -> nn.Module:
    """The network, with ``weights`` (of :func:`read_weights`, if any) loaded, on one device.

    Not spread over several GPUs as in torchreid's scripts: DPM's two steps freeze parameters, which ``DataParallel``
    copies anew each time. Choose the GPU by CUDA_VISIBLE_DEVICES, or give each its own process by torchrun.
    """
    name, classes = config.model.name, datamanager.num_train_pids
    if name in MODELS:
        cameras, _ = _cameras_to_evaluate(config, datamanager, weights)
        if config.vit.camera_embedding and cameras != datamanager.num_cameras:
            what = f"'{config.model.load_weights}' has {cameras} cameras, data.sources {datamanager.num_cameras}"
            print(f"=> {what}: where test.cameras is auto, a data set that it was not trained on gets the neutral one")
        with processes.main_first():  # it may download weights
            model = MODELS[name](**settings.model_kwargs(config, classes, cameras))
    elif config.model.pretrained and weights_by_plain_http(name):
        why = f"torchreid fetches the ImageNet weights of '{name}' by plain HTTP and executes what is in them"
        raise DPMError(f"{why}; set model.pretrained False, or choose another model")
    else:
        try:
            model = models.build_model(**settings.stock_model_kwargs(config, classes))
        except Exception as error:  # network, Google's refusals, file system
            if not config.model.pretrained:
                raise
            what = f"the ImageNet weights of '{name}' can't be had ({first_line(error)[:200]})"
            raise DPMError(f"{what}; go online once, or set model.pretrained False") from error
    for layer in config.train.open_layers if config.train.fixbase_epoch else ():
        if not hasattr(model, layer):
            layers = ", ".join(child for child, _ in model.named_children())
            raise DPMError(f"train.open_layers names '{layer}', which '{name}' does not have; it has {layers}")
    if weights is not None:
        people = lambda: recorded_people(settings.record(config, digest(datamanager)))
        knows_them = config.test.evaluate or config.data.type == "video" or weights.people in (None, people())
        report, own = load_state(model, weights.state, weights.path, knows_them), model.state_dict()
        if not config.test.evaluate:
            tell_of_classifier(weights.path, weights.people, knows_them, report.loaded)
        lacking = [key for key in report.missing + report.skipped if own[key].is_floating_point()]
        lacking = [key for key in lacking if not key.startswith("classifier")]  # which no evaluation uses
        if config.test.evaluate and lacking:
            what = f"lacks {len(lacking)} tensors that '{name}' is evaluated with, the first is '{lacking[0]}'"
            raise DPMError(f"'{config.model.load_weights}' {what}; set model.name and vit as it was trained")
    if config.train.freeze_blocks:
        model.backbone.freeze(config.train.freeze_blocks)
    _check_batch(config, model)
    model = model.cuda() if config.use_gpu else model
    if config.train.sync_bn:
        synchronise_batch_norm(model, processes)
    return model


def _check_batch(config: CfgNode, model: nn.Module) -> None:
    """Refuse one image at a time where a BatchNorm of ``model`` needs two values of each channel.

    Several processes take two images each at least, see :func:`~dpm_plugin.data.sharing.share_of_batch`.
    """
    if config.train.batch_size > 1 or config.test.evaluate or config.data.type == "video":
        return
    try:
        with torch.no_grad():
            copy.deepcopy(model).train()(torch.zeros(1, 3, config.data.height, config.data.width))
    except ValueError as error:
        raise DPMError("train.batch_size 1 leaves BatchNorm one image to average over; give at least 2") from error


def _cameras_to_evaluate(
    config: CfgNode, datamanager: DataManager, weights: Weights | None
) -> tuple[int, Mapping[str, CameraRows] | None]:
    """Rows of the camera embedding, and the cameras that training knew (None: those of the data manager).

    Those of the weights to evaluate, if any: today's data sets need not be what these were trained on.
    """
    if weights is None or not config.test.evaluate:
        return datamanager.num_cameras, None
    rows = rows_of(to_own_names(weights.state).state, CAMERAS, f"'{weights.path}'")
    if weights.cameras is None and rows != datamanager.num_cameras:
        return rows, {}
    return rows, weights.cameras


def build_optimizer(config: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of ``train.optim``, torchreid's for its own models; DPMError for settings that torch refuses."""
    try:
        if config.model.name in MODELS:
            return recipe.build_optimizer(model, **settings.optimizer_kwargs(config))
        return stock_optim.build_optimizer(model, **settings.stock_optimizer_kwargs(config))
    except ValueError as error:
        raise DPMError(f"optimizer {config.train.optim} (keys train, sgd, adam, rmsprop): {error}") from error


def build_scheduler(config: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
    """The schedule of ``train.lr_scheduler``, stepped once per epoch."""
    if config.train.lr_scheduler == "warmup_cosine":
        return recipe.build_scheduler(optimizer, **settings.scheduler_kwargs(config))
    return stock_optim.build_lr_scheduler(optimizer, **settings.stock_scheduler_kwargs(config))


def build_engine(
    config: CfgNode,
    datamanager: DataManager,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    processes: Processes = ALONE,
    weights: Weights | None = None,
) -> engine.Engine:
    """The engine of ``loss.name`` and ``data.type``; all but the video ones train and evaluate as this plugin does.

    ``weights``: those that :func:`build_model` loaded, if any.
    """
    kwargs = dict(settings.engine_kwargs(config), optimizer=optimizer, scheduler=scheduler)
    if config.data.type == "video":
        engines = {"softmax": engine.VideoSoftmaxEngine, "triplet": engine.VideoTripletEngine}
        return engines[config.loss.name](datamanager, model, **kwargs)
    images = digest(datamanager)
    kwargs["training"] = TrainingOptions(**settings.training_kwargs(config, processes.seed(config.train.seed), images))
    _, cameras = _cameras_to_evaluate(config, datamanager, weights) if config.model.name in MODELS else (0, None)
    kwargs["evaluation"] = EvaluationOptions(**settings.evaluation_kwargs(config), trained_cameras=cameras)
    kwargs["processes"] = processes
    if config.loss.name == "dpm":
        gather = processes.all_gather
        kwargs["criterion"] = DPMLoss(**settings.criterion_kwargs(config), num_processes=processes.size, gather=gather)
    engines = {"dpm": ImageDPMEngine, "softmax": SoftmaxEngine, "triplet": TripletEngine}
    return engines[config.loss.name](datamanager, model, **kwargs)


def build_run(config: CfgNode, processes: Processes = ALONE) -> engine.Engine:
    """All parts of a run, one after another: an engine over its data, model, optimizer and schedule."""
    datamanager = build_datamanager(config, processes)
    weights = read_weights(config)
    matters = config.loss.name == "dpm" and not datamanager.same_without_dense
    if matters and processes.broadcast(lambda: _goes_on_without_dense_cameras(config, weights)):
        datamanager = build_datamanager(config, processes, dense_cameras=False)
    model = build_model(config, datamanager, processes, weights)
    optimizer = build_optimizer(config, model)
    scheduler = build_scheduler(config, optimizer)
    return build_engine(config, datamanager, model, optimizer, scheduler, processes, weights)


def resume(config: CfgNode, engine: engine.Engine, processes: Processes = ALONE) -> int | None:
    """Take up the checkpoint of ``train.resume`` or ``model.resume`` in an engine of :func:`build_engine`.

    Returns the number of finished epochs, or None where nothing is resumed. Raises DPMError for a checkpoint that is
    missing, unreadable or of another run.
    """
    source = processes.broadcast(lambda: _resumed_checkpoint(config))
    if source is None and "auto" in (config.train.resume, config.model.resume):
        print(f"=> No checkpoint in '{Path(config.data.save_dir) / FOLDER}': from the beginning")
    if not source and config.test.evaluate and not config.model.load_weights and config.model.name in MODELS:
        raise DPMError(f"test.evaluate True would evaluate random weights: no checkpoint in '{config.data.save_dir}'")
    if not source:
        return None
    if isinstance(engine, TrainingMixin):
        return engine.resume(source)
    epoch = restore(source, engine.model, engine.optimizer, engine.scheduler)["epoch"]  # of a video engine
    print(f"=> Resumed from '{source}' after epoch {epoch}")
    return epoch


def _resumed_checkpoint(config: CfgNode) -> str | Path | None:
    source = config.train.resume or config.model.resume
    return newest_checkpoint(Path(config.data.save_dir) / FOLDER) if source == "auto" else source or None


def _goes_on_without_dense_cameras(config: CfgNode, weights: Weights | None) -> bool:
    """Whether the run resumes or evaluates weights that were trained with torchreid's numbers of cameras."""
    source = _resumed_checkpoint(config)
    if source is not None:
        return not has_dense_cameras(read_checkpoint(source))
    return config.test.evaluate and weights is not None and not weights.has_dense_cameras
