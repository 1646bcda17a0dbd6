"""What each part of a run takes from the configuration, as plain keyword arguments.

These functions are the only readers of the configuration: models, losses, data and engines never see it.
"""

from typing import Any

from yacs.config import CfgNode

from dpm_plugin.data.own import OwnOptions
from dpm_plugin.data.synthetic.spec import SyntheticSpec

Arguments = dict[str, Any]


def _pick(section, *names, **renamed):
    """The keys ``names`` of a section, and others under the name ``renamed[name]``; lists are copied."""
    values = {argument: section[key] for argument, key in {**dict(zip(names, names)), **renamed}.items()}
    return {argument: list(value) if isinstance(value, list) else value for argument, value in values.items()}


def datamanager_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``DPMImageDataManager``; for ``data.type video`` of torchreid's ``VideoDataManager``."""
    data = ("root", "sources", "targets", "height", "width", "transforms", "norm_mean", "norm_std", "split_id")
    shared = dict(
        **_pick(config.data, *data, "combineall", "workers"),
        **_pick(config.sampler, "num_instances", "num_cams", "num_datasets", "train_sampler"),
        use_gpu=config.use_gpu,
        batch_size_train=config.train.batch_size,
        batch_size_test=config.test.batch_size,
    )
    if config.data.type == "video":
        return shared | _pick(config.video, "seq_len", "sample_method")
    return dict(
        **shared,
        **_pick(config.data, "k_tfm", "load_train_targets", "interpolation", "persistent_workers", "corrupt"),
        **_pick(config.cuhk03, cuhk03_labeled="labeled_images", cuhk03_classic_split="classic_split"),
        market1501_500k=config.market1501.use_500k_distractors,
        train_sampler_t=config.sampler.train_sampler_t,
        synthetic=synthetic_spec(config),
        own=own_options(config),
    )


def synthetic_spec(config: CfgNode) -> SyntheticSpec:
    """What ``synthetic_occluded`` draws; raises DPMError for a value out of its range."""
    return SyntheticSpec(**config.synthetic)


def own_options(config: CfgNode) -> OwnOptions:
    """How your own people are read; raises DPMError for a pattern that is none."""
    return OwnOptions(**config.data.own)


def stock_model_kwargs(config: CfgNode, num_classes: int) -> Arguments:
    """Arguments of ``torchreid.models.build_model``."""
    shared = dict(num_classes=num_classes, loss=config.loss.name, use_gpu=config.use_gpu)
    return shared | _pick(config.model, "name", "pretrained")


def model_kwargs(config: CfgNode, num_classes: int, num_cameras: int) -> Arguments:
    """Arguments of the plugin's model functions (``dpm_vit``, ...).

    Args:
        num_classes: training identities.
        num_cameras: training cameras; 0 reaches the model where ``vit.camera_embedding`` is False.
    """
    vit = config.vit
    sizes = _pick(vit, "embed_dim", "depth", "num_heads", "patch_size", "token_std")
    return dict(
        **_pick(vit, "camera_weight", "drop_path", "mask_pool", "neck", "parts", "part_dim", "prototype_init"),
        **{name: value or None for name, value in sizes.items()},
        **({"backbone": vit.backbone} if vit.backbone else {}),
        num_classes=num_classes,
        loss=config.loss.name,
        use_gpu=config.use_gpu,
        pretrained=vit.pretrained_file or config.model.pretrained,
        img_size=(config.data.height, config.data.width),
        stride=_hashable(vit.stride),
        num_cameras=num_cameras if vit.camera_embedding else 0,
        mask_blocks=tuple(vit.mask_blocks) or None,
    )


def criterion_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``DPMLoss`` (Eq. 8): the keys of ``loss.dpm``."""
    renamed = {"cls": "cls_loss", "mask": "mask_loss"}
    return {renamed.get(key, key): value for key, value in config.loss.dpm.items()}


def _optimizer_kwargs(config):
    return dict(
        **_pick(config.train, "optim", "lr", "weight_decay"),
        **_pick(config.adam, adam_beta1="beta1", adam_beta2="beta2"),
        momentum=config.sgd.momentum,
        rmsprop_alpha=config.rmsprop.alpha,
    )


def optimizer_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``dpm_plugin.method.recipe.build_optimizer``."""
    own = _pick(config.train, "bias_lr_mult", "mask_lr_mult", form="optim_form")
    return dict(**_optimizer_kwargs(config), **_pick(config.sgd, "nesterov", "dampening"), **own)


def stock_optimizer_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``torchreid.optim.build_optimizer``."""
    own = _pick(config.train, "staged_lr", "new_layers", "base_lr_mult")
    sgd = _pick(config.sgd, sgd_dampening="dampening", sgd_nesterov="nesterov")
    return dict(**_optimizer_kwargs(config), **sgd, **own)


def scheduler_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``dpm_plugin.method.recipe.build_scheduler``."""
    return _pick(config.train, "max_epoch", "warmup_epochs", "warmup_factor", "final_factor", "mask_schedule")


def stock_scheduler_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``torchreid.optim.build_lr_scheduler``."""
    return _pick(config.train, "lr_scheduler", "stepsize", "gamma", "max_epoch")


def engine_kwargs(config: CfgNode) -> Arguments:
    """Arguments of the engine of ``loss.name``, beside data, model, optimizer, schedule and criterion."""
    if config.loss.name == "dpm":
        kwargs = _pick(config.train, "amp", "steps", "accumulate", "conv_layout", "grad_checkpointing")
        return dict(kwargs, use_gpu=config.use_gpu, compile_backend="inductor" if config.train.compile else None)
    kwargs = dict(use_gpu=config.use_gpu, label_smooth=config.loss.softmax.label_smooth)
    if config.loss.name == "triplet":
        kwargs |= config.loss.triplet
    return kwargs | (_pick(config.video, "pooling_method") if config.data.type == "video" else {})


def training_kwargs(config: CfgNode, seed: int, images: str) -> Arguments:
    """Arguments of ``TrainingOptions``; ``seed`` is this process's, ``images`` the digest of the training images."""
    names = ("checkpoint_every", "keep_checkpoints", "keep_epochs", "non_finite", "non_finite_limit", "patience")
    position_seed = seed if config.train.deterministic else None
    kept = None if config.test.evaluate else record(config, images)
    return dict(_pick(config.train, *names), position_seed=position_seed, record=kept)


def record(config: CfgNode, images: str) -> Arguments:
    """What checkpoints record of a run with these settings, and this digest of its training images."""
    return dict(config=_plain(config), images=images)


def evaluation_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``EvaluationOptions``: headline row, cameras, and what results.json says of the run."""
    run_info = dict(model=config.model.name, seed=config.train.seed, config=_plain(config))
    return dict(_pick(config.test, "feature", "mask"), cameras=_hashable(config.test.cameras), run_info=run_info)


def folder_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``save_folder`` and ``clear_older`` of :mod:`dpm_plugin.engine.run_folder`."""
    source = config.train.resume or config.model.resume
    return dict(
        folder=config.data.save_dir, source=source, evaluate=config.test.evaluate, overwrite=config.train.overwrite
    )


def engine_run_kwargs(config: CfgNode, start_epoch: int | None = None) -> Arguments:
    """Arguments of ``Engine.run``; ``start_epoch`` (from a checkpoint) replaces ``train.start_epoch``."""
    test = ("start_eval", "eval_freq", "dist_metric", "normalize_feature", "visrank", "visrank_topk", "ranks", "rerank")
    return dict(
        _pick(config.train, "max_epoch", "start_epoch", "print_freq", "fixbase_epoch", "open_layers"),
        **_pick(config.test, *test, test_only="evaluate"),
        **({} if start_epoch is None else {"start_epoch": start_epoch}),
        save_dir=config.data.save_dir,
        use_metric_cuhk03=config.cuhk03.use_metric_cuhk03,
    )


def _hashable(value):
    return tuple(value) if isinstance(value, list) else value


def _plain(node):
    return {name: _plain(value) if isinstance(value, dict) else value for name, value in node.items()}
