"""Build the parts of one run from its configuration: data, model, optimizer, schedule, engine; resume it.

torchreid's own models keep torchreid's optimizers and engines; the plugin's models use the plugin's.
"""

from pathlib import Path

from dpm_plugin.config import (
    criterion_kwargs,
    datamanager_kwargs,
    engine_kwargs,
    evaluation_kwargs,
    model_kwargs,
    optimizer_kwargs,
    scheduler_kwargs,
    stock_model_kwargs,
    stock_optimizer_kwargs,
    stock_scheduler_kwargs,
    training_kwargs,
)
from dpm_plugin.data import DPMImageDataManager
from dpm_plugin.data.datasets import torchreid_sets
from dpm_plugin.data.sharing import check_same_data
from dpm_plugin.distributed.processes import ALONE
from dpm_plugin.distributed.sync_bn import synchronise_batch_norm
from dpm_plugin.engine.engine import ImageDPMEngine
from dpm_plugin.engine.optim import build_optimizer as build_dpm_optimizer
from dpm_plugin.engine.optim import build_scheduler as build_dpm_scheduler
from dpm_plugin.engine.run_checkpoints import newest_checkpoint
from dpm_plugin.engine.testing import SoftmaxEngine, TripletEngine
from dpm_plugin.evaluation.metric import matching_counts
from dpm_plugin.method.losses import DPMLoss
from dpm_plugin.models import MODELS
from dpm_plugin.torchreid_host import (
    data,
    engine,
    model_names,
    models,
    optim,
    video_dataset_classes,
    weights_by_plain_http,
)
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import nearest
from dpm_plugin.weights import files as checkpoint
from dpm_plugin.weights.load import load_weights


def check_names(config, processes=ALONE):
    """Refuse an unknown model, and one that does not go with the other settings, before loading anything.

    Args:
        processes: :class:`~dpm_plugin.distributed.processes.Processes` of the run, here and below. Default: one.

    Raises:
        DPMError: names the nearest known model, or the key to change.
    """
    name = config.model.name
    if name not in model_names():
        raise DPMError(f"unknown model '{name}'; the nearest known model is '{nearest(name, model_names())}'")
    if processes.size > 1 and (name not in MODELS or config.loss.name != "dpm"):
        raise DPMError(
            f"several processes train the plugin's models with loss.name dpm only, not '{name}' with "
            f"{config.loss.name}; start it without torchrun"
        )
    if name not in MODELS:
        if config.loss.name == "dpm":
            raise DPMError(
                f"loss.name dpm needs one of the plugin's models ({', '.join(sorted(MODELS))}), "
                f"not '{name}'; set loss.name softmax or triplet"
            )
        train = config.train
        if train.optim == "adamw" or train.bias_lr_mult != 1 or train.optim_form != "auto":
            raise DPMError(
                "train.optim adamw, train.bias_lr_mult other than 1 and train.optim_form other than "
                f"auto are for the plugin's models, not '{name}'"
            )
        return
    if config.data.type == "video":
        raise DPMError(f"'{name}' takes single images; set data.type image")
    if config.train.staged_lr:
        raise DPMError(
            f"train.staged_lr would leave tokens and position embedding of '{name}' out of the "
            "optimizer; set it to False"
        )


def build_datamanager(config, processes=ALONE):
    """The data manager: ``DPMImageDataManager``, or torchreid's ``VideoDataManager``.

    Raises:
        DPMError: a data set is unknown, missing or broken, cannot fill a training batch, has no query or gallery, no
            query with an image to find, or fewer gallery images (CUHK03's protocol: identities) than the highest of
            ``test.ranks``.
    """
    if config.data.type == "image":
        with processes.main_first():
            datamanager = DPMImageDataManager(**datamanager_kwargs(config), processes=processes)
        check_same_data(datamanager, processes)
        _check_targets(config, datamanager)
        return datamanager
    known = video_dataset_classes()
    for name in config.data.sources + config.data.targets:
        if name not in known:
            raise DPMError(f"unknown video data set '{name}'; the nearest known one is '{nearest(name, known)}'")
        torchreid_sets.check_present(name, known[name], config.data.root)
    try:
        return data.VideoDataManager(**datamanager_kwargs(config))
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        # So torchreid reports a missing folder, a failed download or a batch that cannot be filled.
        raise DPMError(
            f"video data sets {config.data.sources} -> {config.data.targets} under "
            f"'{config.data.root}' cannot be loaded: {error}"
        ) from error


def _check_targets(config, datamanager):
    # Now, not in the evaluation after hours of training.
    for name, parts in datamanager.test_dataset.items():
        for side, entries in parts.items():
            if not entries:
                raise DPMError(f"the {side} set of '{name}' is empty")
        sides = [parts["query"], parts["gallery"]]
        try:
            counts = matching_counts(*([entry[field] for entry in side] for field in (1, 2) for side in sides))
        except DPMError as error:
            raise DPMError(f"'{name}' cannot be evaluated: {error}") from error
        ranked, what = counts.gallery, "images"
        if config.cuhk03.use_metric_cuhk03:
            ranked, what = counts.gallery_ids, "identities"
        if max(config.test.ranks) > ranked:
            raise DPMError(
                f"test.ranks asks for rank {max(config.test.ranks)}, but '{name}' has {ranked} gallery {what}; lower it"
            )


def build_model(config, datamanager, processes=ALONE):
    """The network, with ``model.load_weights`` loaded, on one device.

    Not spread over several GPUs as in torchreid's scripts: DPM's two steps freeze parameters, which
    ``DataParallel`` copies anew each time. Choose the GPU by CUDA_VISIBLE_DEVICES, or give each its own
    process by torchrun.
    """
    name, classes = config.model.name, datamanager.num_train_pids
    if name in MODELS:
        with processes.main_first():  # it may download weights
            model = MODELS[name](**model_kwargs(config, classes, datamanager.num_cameras))
    else:
        if config.model.pretrained and weights_by_plain_http(name):
            raise DPMError(
                f"torchreid fetches the ImageNet weights of '{name}' by plain HTTP and executes what is "
                "in them; set model.pretrained False, or choose another model"
            )
        model = models.build_model(**stock_model_kwargs(config, classes))
    for layer in config.train.open_layers if config.train.fixbase_epoch else ():
        if not hasattr(model, layer):
            raise DPMError(
                f"train.open_layers names '{layer}', which '{name}' does not have; it has "
                f"{', '.join(child for child, _ in model.named_children())}"
            )
    if config.model.load_weights:
        load_weights(model, config.model.load_weights)
    model = model.cuda() if config.use_gpu else model
    if config.train.sync_bn:
        synchronise_batch_norm(model, processes)
    return model


def build_optimizer(config, model):
    """The optimizer of ``train.optim``: the plugin's for its own models, torchreid's for torchreid's.

    Raises:
        DPMError: settings that torch refuses together, such as ``sgd.nesterov`` with ``sgd.dampening``.
    """
    try:
        if config.model.name in MODELS:
            return build_dpm_optimizer(model, **optimizer_kwargs(config))
        return optim.build_optimizer(model, **stock_optimizer_kwargs(config))
    except ValueError as error:
        raise DPMError(f"optimizer {config.train.optim} (keys train, sgd, adam, rmsprop): {error}") from error


def build_scheduler(config, optimizer):
    """The schedule of ``train.lr_scheduler``, stepped once per epoch."""
    if config.train.lr_scheduler == "warmup_cosine":
        return build_dpm_scheduler(optimizer, **scheduler_kwargs(config))
    return optim.build_lr_scheduler(optimizer, **stock_scheduler_kwargs(config))


def build_engine(config, datamanager, model, optimizer, scheduler, processes=ALONE):
    """The engine of ``loss.name`` and ``data.type``; all but the video ones evaluate as this plugin does."""
    engines = {
        ("image", "dpm"): ImageDPMEngine,
        ("image", "softmax"): SoftmaxEngine,
        ("image", "triplet"): TripletEngine,
        ("video", "softmax"): engine.VideoSoftmaxEngine,
        ("video", "triplet"): engine.VideoTripletEngine,
    }
    kwargs = dict(engine_kwargs(config), optimizer=optimizer, scheduler=scheduler)
    if config.loss.name == "dpm":
        kwargs.update(criterion=DPMLoss(**criterion_kwargs(config), processes=processes), processes=processes)
    built = engines[config.data.type, config.loss.name](datamanager, model, **kwargs)
    seed = processes.seed(config.train.seed)
    for name, value in {**evaluation_kwargs(config), **training_kwargs(config, seed)}.items():
        setattr(built, name, value)
    return built


def resume(config, engine, processes=ALONE):
    """Take up the checkpoint of ``train.resume`` or ``model.resume`` in an engine of :func:`build_engine`.

    Returns:
        Number of finished epochs for ``engine_run_kwargs``; None where nothing is resumed.

    Raises:
        DPMError: the checkpoint is missing, unreadable or of another run.
    """
    source = config.train.resume or config.model.resume
    if source == "auto":
        folder = Path(config.data.save_dir) / "model"
        source = processes.broadcast(lambda: newest_checkpoint(folder))
        if source is None:
            print(f"=> No checkpoint in '{folder}': from the beginning")
    if not source:
        return None
    if hasattr(engine, "resume"):
        return engine.resume(source)
    return checkpoint.resume(source, engine.model, engine.optimizer, engine.scheduler)  # torchreid's video engines
