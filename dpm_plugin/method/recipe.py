"""The training recipe (paper section 4.1, and the released one where it is silent): optimizer and learning rates."""

from typing import Any

import torch
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.runtime import keep_optimizer_flags, optimizer_flags

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "amsgrad": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "radam": torch.optim.RAdam,
}


def build_optimizer(
    model: nn.Module,
    optim: str = "sgd",
    lr: float = 0.008,
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    bias_lr_mult: float = 2.0,
    mask_lr_mult: float = 1.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    rmsprop_alpha: float = 0.99,
    form: str = "auto",
) -> Optimizer:
    """An optimizer whose parameter groups keep the mask generator and the rest apart.

    Groups carry ``part``, "mask" or "main"; the last group holds the main weights, whose learning rate torchreid
    prints. Frozen parameters have no gradient and are skipped: one optimizer serves both steps.

    Args:
        optim: "sgd" (the paper), "adam", "amsgrad", "adamw", "rmsprop" or "radam".
        lr: learning rate. Default: 0.008, paper section 4.1.
        weight_decay: on every parameter, biases and norms too. Default: 1e-4.
        bias_lr_mult: factor on the learning rate of biases. Default: 2.
        mask_lr_mult: factor on the learning rate of the mask generator. Default: 1.
        form: "loop", "foreach", "fused", equal up to rounding, or "auto" (default): fused on a GPU, where it also
            spares float16's gradient scaler a wait in every step, and from 20 million parameters on, else torch's.
        The rest: as torchreid's ``build_optimizer``. DPMError for an unknown optimizer, or a form it does not have.
    """
    if optim not in OPTIMIZERS:
        raise DPMError(f"train.optim '{optim}' is unknown; choose one of {', '.join(OPTIMIZERS)}")
    flags = optimizer_flags(form, optim, list(model.parameters()), dampening if optim == "sgd" else 0.0)
    betas = (adam_beta1, adam_beta2)
    special: dict[str, dict[str, Any]] = {
        "sgd": dict(momentum=momentum, dampening=dampening, nesterov=nesterov),
        "amsgrad": dict(betas=betas, amsgrad=True),
        "rmsprop": dict(momentum=momentum, alpha=rmsprop_alpha),
    }
    groups = _parameter_groups(model, lr, {"bias": bias_lr_mult, "mask": mask_lr_mult})
    options = special.get(optim, dict(betas=betas)) | flags
    optimizer = OPTIMIZERS[optim](groups, lr=lr, weight_decay=weight_decay, **options)  # type: ignore[call-arg]
    keep_optimizer_flags(optimizer, flags)
    return optimizer


def _parameter_groups(model: nn.Module, lr: float, factors: dict[str, float]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list] = {(part, kind): [] for part in ("mask", "main") for kind in ("bias", "weight")}
    for name, parameter in model.named_parameters():
        part = "mask" if name.startswith("mask_generator.") else "main"
        groups[part, "bias" if name.rpartition(".")[2] == "bias" else "weight"].append(parameter)
    return [
        {"params": params, "lr": lr * factors.get(kind, 1.0) * factors.get(part, 1.0), "part": part}
        for (part, kind), params in groups.items()
        if params
    ]


class WarmupCosine:
    """Linear warm-up and cosine decay an epoch, by timm's scheduler, with torch's ``step()``.

    The learning rate of epoch e = 1, 2, ... is timm's ``CosineLRScheduler`` at e: from ``warmup_factor * lr`` at 0,
    which no epoch trains with, in ``warmup_epochs`` steps, then the cosine over ``max_epoch`` epochs to
    ``final_factor * lr``, as in the released recipe. ``state_dict`` holds only the number of finished epochs, so that
    a run resumed with other settings follows the new ones.

    Args:
        optimizer: of :func:`build_optimizer` (or any other: then all groups are scheduled).
        max_epoch: epochs of the whole run.
        mask_schedule: "cosine" (default), the mask generator follows too, or "constant", it keeps its learning rate
            (the released recipe).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_epoch: int,
        warmup_epochs: int = 5,
        warmup_factor: float = 0.01,
        final_factor: float = 0.002,
        mask_schedule: str = "cosine",
    ) -> None:
        if mask_schedule not in ("cosine", "constant"):
            raise DPMError(f"train.mask_schedule '{mask_schedule}' is unknown; choose 'cosine' or 'constant'")
        groups, constant = optimizer.param_groups, mask_schedule == "constant"
        # By number: an optimizer that takes up a state replaces its groups.
        self._constant = {i: group["lr"] for i, group in enumerate(groups) if constant and group.get("part") == "mask"}
        self._optimizer, base_lr = optimizer, groups[-1]["lr"]
        self._cosine = CosineLRScheduler(
            optimizer,
            t_initial=max(1, max_epoch),
            lr_min=final_factor * base_lr,
            warmup_t=warmup_epochs,
            warmup_lr_init=warmup_factor * base_lr,
        )
        self.load_state_dict({"last_epoch": 0})

    def step(self) -> None:
        """Call once after every epoch."""
        self.load_state_dict({"last_epoch": self.last_epoch + 1})

    def state_dict(self) -> dict[str, int]:
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Set the learning rates of the epoch after ``state["last_epoch"]`` finished ones."""
        self.last_epoch = int(state["last_epoch"])
        self._cosine.step(self.last_epoch + 1)  # epochs count from 1: the coming one
        for number, lr in self._constant.items():
            self._optimizer.param_groups[number]["lr"] = lr


build_scheduler = WarmupCosine  # the name that goes with build_optimizer, as in torchreid
