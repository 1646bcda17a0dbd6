"""What each part of a run takes from the configuration, as plain keyword arguments.

These functions are the only readers of the configuration: models, losses, data and engines never see it.
"""

from dpm_plugin.data.synthetic.spec import SyntheticSpec


def datamanager_kwargs(config):
    """Arguments of ``DPMImageDataManager``; for ``data.type video`` of torchreid's ``VideoDataManager``."""
    data, sampler = config.data, config.sampler
    shared = dict(
        root=data.root,
        sources=list(data.sources),
        targets=list(data.targets),
        height=data.height,
        width=data.width,
        transforms=list(data.transforms),
        norm_mean=list(data.norm_mean),
        norm_std=list(data.norm_std),
        use_gpu=config.use_gpu,
        split_id=data.split_id,
        combineall=data.combineall,
        batch_size_train=config.train.batch_size,
        batch_size_test=config.test.batch_size,
        workers=data.workers,
        num_instances=sampler.num_instances,
        num_cams=sampler.num_cams,
        num_datasets=sampler.num_datasets,
        train_sampler=sampler.train_sampler,
    )
    if data.type == "video":
        return dict(shared, seq_len=config.video.seq_len, sample_method=config.video.sample_method)
    return dict(
        shared,
        k_tfm=data.k_tfm,
        load_train_targets=data.load_train_targets,
        train_sampler_t=sampler.train_sampler_t,
        cuhk03_labeled=config.cuhk03.labeled_images,
        cuhk03_classic_split=config.cuhk03.classic_split,
        market1501_500k=config.market1501.use_500k_distractors,
        interpolation=data.interpolation,
        persistent_workers=data.persistent_workers,
        corrupt=data.corrupt,
        synthetic=synthetic_spec(config),
    )


def stock_model_kwargs(config, num_classes):
    """Arguments of ``torchreid.models.build_model``."""
    return dict(
        name=config.model.name,
        num_classes=num_classes,
        loss=config.loss.name,
        pretrained=config.model.pretrained,
        use_gpu=config.use_gpu,
    )


def model_kwargs(config, num_classes, num_cameras):
    """Arguments of the plugin's model functions (``dpm_vit``, ...).

    Args:
        num_classes: training identities.
        num_cameras: training cameras; 0 reaches the model where ``vit.camera_embedding`` is False.
    """
    vit = config.vit
    kwargs = dict(
        num_classes=num_classes,
        loss=config.loss.name,
        use_gpu=config.use_gpu,
        pretrained=vit.pretrained_file or config.model.pretrained,
        img_size=(config.data.height, config.data.width),
        stride=_hashable(vit.stride),
        num_cameras=num_cameras if vit.camera_embedding else 0,
        camera_weight=vit.camera_weight,
        drop_path=vit.drop_path,
        token_std=vit.token_std or None,
        mask_blocks=tuple(vit.mask_blocks) or None,
        mask_pool=vit.mask_pool,
        neck=vit.neck,
        embed_dim=vit.embed_dim or None,
        depth=vit.depth or None,
        num_heads=vit.num_heads or None,
        patch_size=vit.patch_size or None,
    )
    if vit.backbone:
        kwargs["backbone"] = vit.backbone
    return kwargs


def criterion_kwargs(config):
    """Arguments of ``DPMLoss`` (Eq. 8)."""
    dpm = config.loss.dpm
    return dict(
        alpha=dpm.alpha,
        beta=dpm.beta,
        cls_loss=dpm.cls,
        mask_loss=dpm.mask,
        mask_variant=dpm.mask_variant,
        mask_renormalise=dpm.mask_renormalise,
        scale=dpm.scale,
        margin=dpm.margin,
        head_input=dpm.head_input,
        head_reduction=dpm.head_reduction,
        label_smooth=dpm.label_smooth,
        triplet_margin=dpm.triplet_margin,
    )


def optimizer_kwargs(config):
    """Arguments of ``dpm_plugin.engine.optim.build_optimizer``."""
    train = config.train
    return dict(
        optim=train.optim,
        lr=train.lr,
        weight_decay=train.weight_decay,
        momentum=config.sgd.momentum,
        nesterov=config.sgd.nesterov,
        dampening=config.sgd.dampening,
        adam_beta1=config.adam.beta1,
        adam_beta2=config.adam.beta2,
        rmsprop_alpha=config.rmsprop.alpha,
        bias_lr_mult=train.bias_lr_mult,
        mask_lr_mult=train.mask_lr_mult,
        form=train.optim_form,
    )


def stock_optimizer_kwargs(config):
    """Arguments of ``torchreid.optim.build_optimizer``."""
    train = config.train
    return dict(
        optim=train.optim,
        lr=train.lr,
        weight_decay=train.weight_decay,
        momentum=config.sgd.momentum,
        sgd_dampening=config.sgd.dampening,
        sgd_nesterov=config.sgd.nesterov,
        adam_beta1=config.adam.beta1,
        adam_beta2=config.adam.beta2,
        rmsprop_alpha=config.rmsprop.alpha,
        staged_lr=train.staged_lr,
        new_layers=list(train.new_layers),
        base_lr_mult=train.base_lr_mult,
    )


def scheduler_kwargs(config):
    """Arguments of ``dpm_plugin.engine.optim.build_scheduler``."""
    train = config.train
    return dict(
        max_epoch=train.max_epoch,
        warmup_epochs=train.warmup_epochs,
        warmup_factor=train.warmup_factor,
        final_factor=train.final_factor,
        mask_schedule=train.mask_schedule,
    )


def stock_scheduler_kwargs(config):
    """Arguments of ``torchreid.optim.build_lr_scheduler``."""
    train = config.train
    return dict(
        lr_scheduler=train.lr_scheduler, stepsize=list(train.stepsize), gamma=train.gamma, max_epoch=train.max_epoch
    )


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


def engine_run_kwargs(config, start_epoch=None):
    """Arguments of ``Engine.run``; ``start_epoch`` (from a checkpoint) replaces ``train.start_epoch``."""
    train, test = config.train, config.test
    return dict(
        save_dir=config.data.save_dir,
        max_epoch=train.max_epoch,
        start_epoch=train.start_epoch if start_epoch is None else start_epoch,
        print_freq=train.print_freq,
        fixbase_epoch=train.fixbase_epoch,
        open_layers=list(train.open_layers),
        start_eval=test.start_eval,
        eval_freq=test.eval_freq,
        test_only=test.evaluate,
        dist_metric=test.dist_metric,
        normalize_feature=test.normalize_feature,
        visrank=test.visrank,
        visrank_topk=test.visrank_topk,
        use_metric_cuhk03=config.cuhk03.use_metric_cuhk03,
        ranks=list(test.ranks),
        rerank=test.rerank,
    )


def _hashable(value):
    return tuple(value) if isinstance(value, list) else value


def synthetic_spec(config):
    """What ``synthetic_occluded`` draws; raises DPMError for a value out of its range."""
    return SyntheticSpec(**{name: _hashable(value) for name, value in config.synthetic.items()})


def _plain(node):
    return {name: _plain(value) if isinstance(value, dict) else value for name, value in node.items()}
