"""One budget for different models: settings for torchreid's own, and the epochs that fit into a time."""

import math

from dpm_plugin.models import MODELS
from dpm_plugin.utils.errors import DPMError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def stock_overrides(model_name, config):
    """What one of torchreid's models needs under a yaml that is written for DPM, as (key, value) pairs.

    Pictures, augmentation, batches, seed and pretraining stay the config's. Loss and optimizer are those of
    torchreid's own recipes: cross-entropy with label smoothing, for PCB the mean over its parts; AMSGrad with
    learning rate 3e-4 and weight decay 5e-4; and the cosine schedule, whose first epoch has the full rate, so
    that even one epoch trains. Retrieval is by cosine, as DPM's. Pretrained models get ImageNet's mean and
    deviation, which their weights expect.

    Args:
        model_name: any model; for one of the plugin's nothing is needed.
        config: the yaml's configuration, of ``dpm_plugin.config.load_config``.

    Returns:
        tuple of (key, value), empty where the config is already one for torchreid's models.
    """
    if model_name in MODELS or config.loss.name != "dpm":
        return ()
    # From scratch, OSNet's own 0.0015 and hard triplets both trained slower in the first hundred iterations.
    overrides = [
        ("loss.name", "softmax"),
        ("loss.softmax.label_smooth", True),
        ("train.optim", "amsgrad"),
        ("train.lr", 3e-4),
        ("train.weight_decay", 5e-4),
        ("train.bias_lr_mult", 1.0),
        ("train.lr_scheduler", "cosine"),
        ("train.amp", "off"),
        ("test.dist_metric", "cosine"),
    ]
    if config.model.pretrained:
        overrides += [("data.norm_mean", IMAGENET_MEAN), ("data.norm_std", IMAGENET_STD)]
    return tuple(overrides)


def schedule_overrides(config, epochs):
    """``epochs`` epochs with the config's schedule shrunk or stretched to them, as (key, value) pairs.

    Warm-up and decay steps keep their place relative to the whole. Below three epochs ``warmup_cosine`` would
    hardly get beyond its first and its final rate, and torchreid's ``cosine`` takes its place.

    Args:
        config: the run's configuration, stock_overrides included.
        epochs: at least 1.
    """
    if epochs < 1:
        raise DPMError(f"a budget of {epochs} epochs trains nothing; give at least 1")
    train, overrides = config.train, [("train.max_epoch", epochs)]
    ratio = epochs / max(1, train.max_epoch)
    if train.lr_scheduler == "warmup_cosine":
        if epochs < 3:
            overrides.append(("train.lr_scheduler", "cosine"))
        else:
            overrides.append(("train.warmup_epochs", min(round(train.warmup_epochs * ratio), epochs - 2)))
    if train.lr_scheduler in ("single_step", "multi_step"):
        steps = sorted({max(1, round(step * ratio)) for step in train.stepsize})
        overrides.append(("train.stepsize", tuple(steps)))
    return tuple(overrides)


def epochs_that_fit(seconds, epoch_seconds):
    """Whole epochs of ``epoch_seconds`` in ``seconds``, at least 1.

    Raises:
        DPMError: no time at all, or no number.
    """
    if not (seconds > 0 and math.isfinite(seconds)):
        raise DPMError(f"a training time of {seconds} seconds trains nothing; give more than 0")
    return max(1, math.floor(seconds / epoch_seconds))
