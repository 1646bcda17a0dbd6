"""Build the parts of one run from its configuration: data, model, optimizer, schedule, engine.

torchreid's own models keep torchreid's optimizers and engines; the plugin's models use the plugin's.
"""
from pathlib import Path

import torch

from dpm_plugin.checkpoint import load_weights
from dpm_plugin.config import (
    criterion_kwargs, datamanager_kwargs, engine_kwargs, model_kwargs, nearest, optimizer_kwargs,
    scheduler_kwargs, stock_model_kwargs, stock_optimizer_kwargs, stock_scheduler_kwargs,
)
from dpm_plugin.data import DPMImageDataManager
from dpm_plugin.engine import ImageDPMEngine
from dpm_plugin.errors import DPMError
from dpm_plugin.losses import DPMLoss
from dpm_plugin.model import MODELS
from dpm_plugin.optim import build_optimizer as build_dpm_optimizer
from dpm_plugin.optim import build_scheduler as build_dpm_scheduler
from dpm_plugin.torchreid_host import data, dataset_names, engine, model_names, models, optim

__all__ = ["check_names", "build_datamanager", "build_model", "build_optimizer", "build_scheduler",
           "build_engine"]


def check_names(config):
    """Refuse unknown names, and a model that does not go with the other settings, before loading anything.

    Raises:
        DPMError: names the nearest known name, or the key to change.
    """
    name = config.model.name
    if name not in model_names():
        raise DPMError(f"unknown model '{name}'; the nearest known model is '{nearest(name, model_names())}'")
    known = dataset_names(config.data.type)
    for dataset in config.data.sources + config.data.targets:
        if dataset not in known:
            raise DPMError(f"unknown {config.data.type} data set '{dataset}'; "
                           f"the nearest known one is '{nearest(dataset, known)}'")
    if not config.data.sources or not config.data.targets:
        raise DPMError("data.sources and data.targets must each name a data set")
    if name not in MODELS:
        if config.loss.name == "dpm":
            raise DPMError(f"loss.name dpm needs one of the plugin's models ({', '.join(sorted(MODELS))}), "
                           f"not '{name}'; set loss.name softmax or triplet")
        if config.train.optim == "adamw" or config.train.bias_lr_mult != 1:
            raise DPMError("train.optim adamw and train.bias_lr_mult other than 1 are for the plugin's "
                           f"models, not '{name}'")
        return
    if config.data.type == "video":
        raise DPMError(f"'{name}' takes single images; set data.type image")
    if config.train.staged_lr:
        raise DPMError(f"train.staged_lr would leave tokens and position embedding of '{name}' out of the "
                       "optimizer; set it to False")


def build_datamanager(config):
    """The data manager: ``DPMImageDataManager``, or torchreid's ``VideoDataManager``.

    Raises:
        DPMError: a data set is missing or broken, or holds less than one training batch.
    """
    manager = data.VideoDataManager if config.data.type == "video" else DPMImageDataManager
    try:
        datamanager = manager(**datamanager_kwargs(config))
    except DPMError:
        raise
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        # torchreid's own data sets report a missing folder, a failed download or a bad sampler this way.
        raise DPMError(f"data sets {config.data.sources} -> {config.data.targets} under "
                       f"'{config.data.root}' cannot be loaded: {' '.join(str(error).split())}") from error
    if len(datamanager.train_loader) == 0 and not config.test.evaluate:
        # torchreid would train nothing and report success.
        raise DPMError(f"train.batch_size {config.train.batch_size} is larger than the training set of "
                       f"{config.data.sources} allows; make it smaller")
    return datamanager


def build_model(config, datamanager):
    """The network on its device, with ``model.load_weights`` loaded.

    torchreid's models spread over all visible GPUs, as in torchreid's scripts; the plugin's use one.
    """
    name = config.model.name
    if name in MODELS:
        cameras = datamanager.num_cameras
        model = MODELS[name](**model_kwargs(config, datamanager.num_train_pids, cameras))
    else:
        model = models.build_model(**stock_model_kwargs(config, datamanager.num_train_pids))
    if config.model.load_weights:
        load_weights(model, _existing(config.model.load_weights, "model.load_weights"))
    if config.use_gpu:
        model = model.cuda()
        if name not in MODELS and torch.cuda.device_count() > 1:
            model = torch.nn.DataParallel(model)
    return model


def build_optimizer(config, model):
    """The optimizer of ``train.optim``: the plugin's for its own models, torchreid's for torchreid's."""
    if config.model.name in MODELS:
        return build_dpm_optimizer(model, **optimizer_kwargs(config))
    return optim.build_optimizer(model, **stock_optimizer_kwargs(config))


def build_scheduler(config, optimizer):
    """The schedule of ``train.lr_scheduler``, stepped once per epoch."""
    if config.train.lr_scheduler == "warmup_cosine":
        return build_dpm_scheduler(optimizer, **scheduler_kwargs(config))
    return optim.build_lr_scheduler(optimizer, **stock_scheduler_kwargs(config))


def build_engine(config, datamanager, model, optimizer, scheduler):
    """The engine of ``loss.name`` and ``data.type``."""
    kwargs = dict(engine_kwargs(config), optimizer=optimizer, scheduler=scheduler)
    if config.loss.name == "dpm":
        return ImageDPMEngine(datamanager, model, criterion=DPMLoss(**criterion_kwargs(config)), **kwargs)
    engines = {
        ("image", "softmax"): engine.ImageSoftmaxEngine, ("image", "triplet"): engine.ImageTripletEngine,
        ("video", "softmax"): engine.VideoSoftmaxEngine, ("video", "triplet"): engine.VideoTripletEngine,
    }
    return engines[config.data.type, config.loss.name](datamanager, model, **kwargs)


def _existing(path, key):
    if not Path(path).is_file():
        raise DPMError(f"{key} '{path}' is no file; name an existing one or leave the key empty")
    return path
