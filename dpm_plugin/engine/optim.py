"""One optimizer and one schedule for both of DPM's steps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from dpm_plugin.utils.errors import DPMError

OPTIMIZERS = ("sgd", "adam", "amsgrad", "adamw", "rmsprop", "radam")
FORMS = ("auto", "loop", "foreach", "fused")
FUSED = ("sgd", "adam", "amsgrad", "adamw")  # the ones torch has fused kernels for
LARGE = 20_000_000  # parameters from which the fused kernels are chosen on a CPU: the others read memory several times


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

    Groups carry ``part``, "mask" or "main"; the last one holds the main weights, whose learning rate torchreid prints.

    Args:
        optim: "sgd" (the paper), "adam", "amsgrad", "adamw", "rmsprop" or "radam".
        lr: learning rate. Default: 0.008, paper section 4.1.
        weight_decay: on every parameter, biases and norms too. Default: 1e-4.
        bias_lr_mult: factor on the learning rate of biases. Default: 2.
        mask_lr_mult: factor on the learning rate of the mask generator. Default: 1.
        form: "auto", "loop", "foreach" or "fused", see :func:`form_flags`. Default: "auto".
        The rest: as torchreid's ``build_optimizer``.

    Raises:
        DPMError: an unknown optimizer, or a form that it does not have.
    """
    if optim not in OPTIMIZERS:
        raise DPMError(f"train.optim '{optim}' is unknown; choose one of {', '.join(OPTIMIZERS)}")
    flags = form_flags(form, optim, list(model.parameters()), dampening if optim == "sgd" else 0.0)
    betas = (adam_beta1, adam_beta2)
    builders: dict[str, tuple[Callable[..., Optimizer], dict[str, Any]]] = {
        "sgd": (torch.optim.SGD, dict(momentum=momentum, dampening=dampening, nesterov=nesterov)),
        "adam": (torch.optim.Adam, dict(betas=betas)),
        "amsgrad": (torch.optim.Adam, dict(betas=betas, amsgrad=True)),
        "adamw": (torch.optim.AdamW, dict(betas=betas)),
        "rmsprop": (torch.optim.RMSprop, dict(momentum=momentum, alpha=rmsprop_alpha)),
        "radam": (torch.optim.RAdam, dict(betas=betas)),
    }
    build, own = builders[optim]
    groups = _parameter_groups(model, lr, {"bias": bias_lr_mult, "mask": mask_lr_mult})
    return _keep_form(build(groups, lr=lr, weight_decay=weight_decay, **own, **flags), flags)


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

    The learning rate of epoch e = 1, 2, ... is timm's ``CosineLRScheduler`` at e: from ``warmup_factor * lr`` in
    ``warmup_epochs`` steps, then the cosine over ``max_epoch`` epochs to ``final_factor * lr``, as in the released
    recipe. ``state_dict`` holds only the number of finished epochs, so that a run resumed with other settings
    follows the new ones.

    Args:
        optimizer: of :func:`build_optimizer` (or any other: then all groups are scheduled).
        max_epoch: epochs of the whole run.
        mask_schedule: "cosine", the mask generator follows too, or "constant", it keeps its
            learning rate (the released recipe). Default: "cosine".

    Raises:
        DPMError: an unknown schedule of the mask generator.
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
        groups = optimizer.param_groups
        kept = [group for group in groups if mask_schedule == "constant" and group.get("part") == "mask"]
        self._constant = [(group, group["lr"]) for group in kept]
        base_lr = groups[-1]["lr"]
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
        for group, lr in self._constant:
            group["lr"] = lr


build_scheduler = WarmupCosine  # the name that goes with build_optimizer, as in torchreid


def form_flags(
    form: str, optim: str, parameters: Sequence[nn.Parameter], dampening: float = 0.0
) -> dict[str, bool | None]:
    """torch's ``foreach`` and ``fused`` arguments for a form. All forms are equal up to rounding.

    Args:
        form: "loop", "foreach", "fused", or "auto": fused on a GPU, where it also spares the gradient scaler
            of float16 a wait for the device in every step, and for models of 20 million parameters or more;
            torch's own choice elsewhere.
        optim, parameters: name of the optimizer, and what it will hold, already on their device.
        dampening: of SGD's momentum. The fused kernel starts a momentum at zero, where torch's loop starts it
            at the first gradient; without dampening that is the same.

    Raises:
        DPMError: unknown, or fused where there is no right kernel for it.
    """
    if form not in FORMS:
        raise DPMError(f"train.optim_form '{form}' is unknown; choose one of {', '.join(FORMS)}")
    has_fused = optim in FUSED and not dampening
    if form == "fused" and not has_fused:
        why = "with sgd.dampening" if optim in FUSED else f"of {optim}"
        raise DPMError(f"train.optim_form fused: there is no fused form {why}; set train.optim_form auto")
    if form == "auto" and has_fused:
        on_gpu = all(parameter.device.type == "cuda" for parameter in parameters)
        is_large = sum(parameter.numel() for parameter in parameters) >= LARGE
        form = "fused" if on_gpu or is_large else form
    names = ("foreach", "fused") if optim in FUSED else ("foreach",)
    return {name: None if form == "auto" else form == name for name in names}


def _keep_form(optimizer: Optimizer, flags: dict[str, bool | None]) -> Optimizer:
    """Make ``optimizer`` keep its form and its tensors' memory format when it takes up a checkpoint's state.

    torch would take the form from the checkpoint, too, which may be of another machine.
    """

    def own_flags(optimizer: Optimizer, state: dict) -> dict:
        return {**state, "param_groups": [{**group, **flags} for group in state["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(own_flags)
    optimizer.register_load_state_dict_post_hook(_match_memory_format)
    if flags.get("fused") and isinstance(optimizer, torch.optim.SGD):
        optimizer.register_step_pre_hook(_start_momentum)
    return optimizer


@torch.no_grad()
def _match_memory_format(optimizer: Optimizer) -> None:
    # A kernel that walks over parameter and state side by side needs one memory format (train.conv_layout).
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)


def _start_momentum(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
    # The fused kernel fails on a group of which some parameters have a momentum and others, frozen so far, none.
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if parameter.grad is not None and optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
