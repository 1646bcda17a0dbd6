"""One budget for different models: settings for torchreid's own, and the epochs that fit into a time."""

import math

from yacs.config import CfgNode

from dpm_plugin.config import SCHEMA, flat
from dpm_plugin.models import BASELINES, MODELS
from dpm_plugin.utils.errors import DPMError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# From scratch, OSNet's own rate of 0.0015 and hard triplets both trained slower in the first hundred iterations.
STOCK_RECIPE = {
    "loss.name": "softmax",
    "loss.softmax.label_smooth": True,
    "train.optim": "amsgrad",
    "train.lr": 3e-4,
    "train.weight_decay": 5e-4,
    "train.bias_lr_mult": 1.0,
    "train.lr_scheduler": "cosine",
    "train.amp": "off",
    "test.dist_metric": "cosine",
}


def stock_overrides(model_name: str, config: CfgNode) -> dict[str, object]:
    """What one of torchreid's models needs under a yaml that is written for DPM, {key: value}.

    Images, augmentation, batches, seed and pretraining stay the config's. Loss and optimizer are those of
    torchreid's own recipes: cross-entropy with label smoothing, for PCB the mean over its parts; AMSGrad with
    learning rate 3e-4 and weight decay 5e-4; and the cosine schedule, whose first epoch has the full rate, so
    that even one epoch trains. Retrieval is by cosine, as DPM's. Pretrained models get ImageNet's mean and
    deviation, which their weights expect.

    Args:
        model_name: any model; of the plugin's only a baseline needs anything: it has no mask generator to set.
        config: the yaml's configuration; one that is for torchreid's models already needs nothing.
    """
    if config.loss.name != "dpm" or model_name in MODELS.keys() - BASELINES:
        return {}
    of_mask = {key: SCHEMA[key].default for key in ("train.mask_schedule", "train.mask_lr_mult")}
    of_mask = {key: default for key, default in of_mask.items() if dict(flat(config))[key] != default}
    if model_name in BASELINES:
        return of_mask
    normalisation = {"data.norm_mean": IMAGENET_MEAN, "data.norm_std": IMAGENET_STD}
    return STOCK_RECIPE | of_mask | (normalisation if config.model.pretrained else {})


def schedule_overrides(config: CfgNode, epochs: int) -> dict[str, object]:
    """``epochs`` epochs with the config's schedule shrunk or stretched to them, {key: value}.

    Warm-up and decay steps keep their place relative to the whole. Below three epochs ``warmup_cosine`` would
    hardly get beyond its first and its final rate, and torchreid's ``cosine`` takes its place.

    Args:
        config: the run's configuration, stock_overrides included.
        epochs: at least 1.
    """
    if epochs < 1:
        raise DPMError(f"a budget of {epochs} epochs trains nothing; give at least 1")
    train = config.train
    overrides: dict[str, object] = {"train.max_epoch": epochs}
    ratio = epochs / max(1, train.max_epoch)
    if train.lr_scheduler == "warmup_cosine" and epochs < 3:
        overrides["train.lr_scheduler"] = "cosine"
        if train.mask_schedule != "cosine":
            overrides["train.mask_schedule"] = "cosine"
    elif train.lr_scheduler == "warmup_cosine":
        overrides["train.warmup_epochs"] = min(round(train.warmup_epochs * ratio), epochs - 2)
    elif train.lr_scheduler in ("single_step", "multi_step"):
        overrides["train.stepsize"] = tuple(sorted({max(1, round(step * ratio)) for step in train.stepsize}))
    return overrides


def epochs_that_fit(seconds: float, epoch_seconds: float) -> int:
    """Whole epochs of ``epoch_seconds`` in ``seconds``, at least 1.

    Raises:
        DPMError: no time at all, or no number.
    """
    if not (seconds > 0 and math.isfinite(seconds)):
        raise DPMError(f"a training time of {seconds} seconds trains nothing; give more than 0")
    return max(1, math.floor(seconds / epoch_seconds))
