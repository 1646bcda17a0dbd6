"""One optimizer and one schedule for both of DPM's steps."""
import torch
from timm.scheduler import CosineLRScheduler

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.engine.optim_form import form_flags, keep_form

OPTIMIZERS = ("sgd", "adam", "amsgrad", "adamw", "rmsprop", "radam")


def build_optimizer(
    model,
    optim="sgd",
    lr=0.008,
    weight_decay=1e-4,
    momentum=0.9,
    bias_lr_mult=2.0,
    mask_lr_mult=1.0,
    dampening=0.0,
    nesterov=False,
    adam_beta1=0.9,
    adam_beta2=0.999,
    rmsprop_alpha=0.99,
    form="auto",
):
    """An optimizer whose parameter groups keep the mask generator and the rest apart.

    A parameter whose gradient is None is skipped by every one of these optimizers, so one
    optimizer serves both steps. Groups carry ``part``, "mask" or "main"; the last group
    holds the main weights, whose learning rate torchreid prints.

    Args:
        optim: "sgd" (the paper), "adam", "amsgrad", "adamw", "rmsprop" or "radam".
        lr: learning rate. Default: 0.008, paper section 4.1.
        weight_decay: on every parameter, biases and norms too. Default: 1e-4.
        bias_lr_mult: factor on the learning rate of biases. Default: 2.
        mask_lr_mult: factor on the learning rate of the mask generator. Default: 1.
        form: "auto", "loop", "foreach" or "fused", see :func:`~dpm_plugin.engine.optim_form.form_flags`. Default: "auto".
        The rest: as torchreid's ``build_optimizer``.
    """
    if optim not in OPTIMIZERS:
        raise DPMError(f"train.optim '{optim}' is unknown; choose one of {', '.join(OPTIMIZERS)}")
    flags = form_flags(form, optim, list(model.parameters()), dampening if optim == "sgd" else 0.0)
    common = dict(lr=lr, weight_decay=weight_decay, **flags)
    betas = (adam_beta1, adam_beta2)
    build, own = {
        "sgd": (torch.optim.SGD, dict(momentum=momentum, dampening=dampening, nesterov=nesterov)),
        "adam": (torch.optim.Adam, dict(betas=betas)),
        "amsgrad": (torch.optim.Adam, dict(betas=betas, amsgrad=True)),
        "adamw": (torch.optim.AdamW, dict(betas=betas)),
        "rmsprop": (torch.optim.RMSprop, dict(momentum=momentum, alpha=rmsprop_alpha)),
        "radam": (torch.optim.RAdam, dict(betas=betas)),
    }[optim]
    groups = _parameter_groups(model, lr, {"bias": bias_lr_mult, "mask": mask_lr_mult})
    return keep_form(build(groups, **own, **common), flags)


def _parameter_groups(model, lr, factors):
    mask = getattr(model, "mask_generator", None)
    mask_ids = {id(p) for p in mask.parameters()} if mask is not None else set()
    groups = {(part, kind): [] for part in ("mask", "main") for kind in ("bias", "weight")}
    for name, parameter in model.named_parameters():
        part = "mask" if id(parameter) in mask_ids else "main"
        groups[part, "bias" if name.rpartition(".")[2] == "bias" else "weight"].append(parameter)
    return [
        {"params": params, "lr": lr * factors.get(kind, 1.0) * factors.get(part, 1.0), "part": part}
        for (part, kind), params in groups.items()
        if params
    ]


class WarmupCosine:
    """Linear warm-up and cosine decay an epoch, by timm's scheduler, with torch's ``step()``.

    The learning rate of epoch e = 1, 2, ... is timm's ``CosineLRScheduler`` at e: from
    ``warmup_factor * lr`` in ``warmup_epochs`` steps, then the cosine over ``max_epoch``
    epochs to ``final_factor * lr``, as in the released recipe (DESIGN section 1).

    Args:
        optimizer: of :func:`build_optimizer` (or any other: then all groups are scheduled).
        mask_schedule: "cosine", the mask generator follows too, or "constant", it keeps its
            learning rate (the released recipe). Default: "cosine".

    ``state_dict`` holds only the number of finished epochs, so that a run resumed with other
    settings follows the new ones.
    """

    def __init__(
        self, optimizer, max_epoch, warmup_epochs=5, warmup_factor=0.01, final_factor=0.002, mask_schedule="cosine"
    ):
        if mask_schedule not in ("cosine", "constant"):
            raise DPMError(f"train.mask_schedule '{mask_schedule}' is unknown; choose 'cosine' or 'constant'")
        self.optimizer = optimizer
        self.last_epoch = 0
        self._constant = [
            (group, group["lr"])
            for group in optimizer.param_groups
            if mask_schedule == "constant" and group.get("part") == "mask"
        ]
        base_lr = optimizer.param_groups[-1]["lr"]
        self._cosine = CosineLRScheduler(
            optimizer,
            t_initial=max(1, max_epoch),
            lr_min=final_factor * base_lr,
            warmup_t=warmup_epochs,
            warmup_lr_init=warmup_factor * base_lr,
        )
        self._apply()

    def _apply(self):
        self._cosine.step(self.last_epoch + 1)  # epochs count from 1: the coming one
        for group, lr in self._constant:
            group["lr"] = lr

    def step(self):
        """Call once after every epoch."""
        self.last_epoch += 1
        self._apply()

    def state_dict(self):
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state):
        self.last_epoch = int(state["last_epoch"])
        self._apply()


def build_scheduler(
    optimizer, max_epoch, warmup_epochs=5, warmup_factor=0.01, final_factor=0.002, mask_schedule="cosine"
):
    """The schedule of the paper and the released recipe; see :class:`WarmupCosine`."""
    return WarmupCosine(optimizer, max_epoch, warmup_epochs, warmup_factor, final_factor, mask_schedule)
