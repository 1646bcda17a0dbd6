"""What each part of a run takes from the configuration, as plain keyword arguments.

These functions are the only readers of the configuration: models, losses, data and engines never see it.
"""

from typing import Any

from yacs.config import CfgNode

from dpm_plugin.data.synthetic.spec import SyntheticSpec

Arguments = dict[str, Any]


def _pick(section, *names, **renamed):
    """The keys ``names`` of a section, and others under the name ``renamed[name]``; lists are copied."""
    names = dict(zip(names, names)) | renamed
    values = {argument: section[key] for argument, key in names.items()}
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
    )


def stock_model_kwargs(config: CfgNode, num_classes: int) -> Arguments:
    """Arguments of ``torchreid.models.build_model``."""
    return dict(
        **_pick(config.model, "name", "pretrained"),
        num_classes=num_classes,
        loss=config.loss.name,
        use_gpu=config.use_gpu,
    )


def model_kwargs(config: CfgNode, num_classes: int, num_cameras: int) -> Arguments:
    """Arguments of the plugin's model functions (``dpm_vit``, ...).

    Args:
        num_classes: training identities.
        num_cameras: training cameras; 0 reaches the model where ``vit.camera_embedding`` is False.
    """
    vit = config.vit
    sizes = _pick(vit, "embed_dim", "depth", "num_heads", "patch_size", "token_std")
    return dict(
        **_pick(vit, "camera_weight", "drop_path", "mask_pool", "neck"),
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
    keys = dict(config.loss.dpm)
    renamed = {"cls_loss": keys.pop("cls"), "mask_loss": keys.pop("mask")}
    return keys | renamed


def _optimizer_kwargs(config):
    return dict(
        **_pick(config.train, "optim", "lr", "weight_decay"),
        **_pick(config.adam, adam_beta1="beta1", adam_beta2="beta2"),
        momentum=config.sgd.momentum,
        rmsprop_alpha=config.rmsprop.alpha,
    )


def optimizer_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``dpm_plugin.engine.optim.build_optimizer``."""
    return dict(
        **_optimizer_kwargs(config),
        **_pick(config.sgd, "nesterov", "dampening"),
        **_pick(config.train, "bias_lr_mult", "mask_lr_mult", form="optim_form"),
    )


def stock_optimizer_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``torchreid.optim.build_optimizer``."""
    return dict(
        **_optimizer_kwargs(config),
        **_pick(config.sgd, sgd_dampening="dampening", sgd_nesterov="nesterov"),
        **_pick(config.train, "staged_lr", "new_layers", "base_lr_mult"),
    )


def scheduler_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``dpm_plugin.engine.optim.build_scheduler``."""
    return _pick(config.train, "max_epoch", "warmup_epochs", "warmup_factor", "final_factor", "mask_schedule")


def stock_scheduler_kwargs(config: CfgNode) -> Arguments:
    """Arguments of ``torchreid.optim.build_lr_scheduler``."""
    return _pick(config.train, "lr_scheduler", "stepsize", "gamma", "max_epoch")


def engine_kwargs(config):
    """Arguments of the engine of ``loss.name``, beside data, model, optimizer, schedule and criterion."""
    if config.loss.name == "dpm":
        train = config.train
        return dict(
            use_gpu=config.use_gpu,
            amp=train.amp,
            steps=train.steps,
            accumulate=train.accumulate,
            compile_backend="inductor" if train.compile else None,
            conv_layout=train.conv_layout,
            grad_checkpointing=train.grad_checkpointing,
        )
    kwargs = dict(use_gpu=config.use_gpu, label_smooth=config.loss.softmax.label_smooth)
    if config.loss.name == "triplet":
        triplet = config.loss.triplet
        kwargs.update(margin=triplet.margin, weight_t=triplet.weight_t, weight_x=triplet.weight_x)
    if config.data.type == "video":
        kwargs.update(pooling_method=config.video.pooling_method)
    return kwargs


def training_kwargs(config, seed):
    """Arguments of ``TrainingOptions``; ``seed`` is this process's."""
    train = config.train
    return dict(
        checkpoint_every=train.checkpoint_every,
        keep_checkpoints=train.keep_checkpoints,
        non_finite=train.non_finite,
        non_finite_limit=train.non_finite_limit,
        position_seed=seed if train.deterministic else None,
    )


def evaluation_kwargs(config):
    """Arguments of ``EvaluationOptions``: headline row, cameras, and what results.json says of the run."""
    test = config.test
    return dict(
        feature=test.feature,
        mask=test.mask,
        cameras=_hashable(test.cameras),
        run_info=dict(model=config.model.name, seed=config.train.seed, config=_plain(config)),
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


def synthetic_spec(config: CfgNode) -> SyntheticSpec:
    """What ``synthetic_occluded`` draws; raises DPMError for a value out of its range."""
    return SyntheticSpec(**config.synthetic)


def _plain(node):
    return {name: _plain(value) if isinstance(value, dict) else value for name, value in node.items()}
