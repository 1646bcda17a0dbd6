"""One optimizer and one schedule for both of DPM's steps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from dpm_plugin.utils.errors import DPMError

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

    Groups carry ``part``, "mask" or "main"; the last group holds the main weights, whose learning rate torchreid
    prints. Frozen parameters have no gradient and are skipped: one optimizer serves both steps.

    Args:
        optim: "sgd" (the paper), "adam", "amsgrad", "adamw", "rmsprop" or "radam".
        lr: learning rate. Default: 0.008, paper section 4.1.
        weight_decay: on every parameter, biases and norms too. Default: 1e-4.
        bias_lr_mult, mask_lr_mult: factors on the learning rate of biases and of the mask generator. Default: 2 and 1.
        form: "loop", "foreach", "fused", equal up to rounding, or "auto" (default): fused on a GPU, where it also
            spares float16's gradient scaler a wait in every step, and from 20 million parameters on, else torch's.
        The rest: as torchreid's ``build_optimizer``. DPMError for an unknown optimizer, or a form it does not have.
    """
    betas = (adam_beta1, adam_beta2)
    builders: dict[str, tuple[Callable[..., Optimizer], dict[str, Any]]] = {
        "sgd": (torch.optim.SGD, dict(momentum=momentum, dampening=dampening, nesterov=nesterov)),
        "adam": (torch.optim.Adam, dict(betas=betas)),
        "amsgrad": (torch.optim.Adam, dict(betas=betas, amsgrad=True)),
        "adamw": (torch.optim.AdamW, dict(betas=betas)),
        "rmsprop": (torch.optim.RMSprop, dict(momentum=momentum, alpha=rmsprop_alpha)),
        "radam": (torch.optim.RAdam, dict(betas=betas)),
    }
    if optim not in builders:
        raise DPMError(f"train.optim '{optim}' is unknown; choose one of {', '.join(builders)}")
    flags = _form_flags(form, optim, list(model.parameters()), dampening if optim == "sgd" else 0.0)
    build, own = builders[optim]
    groups = _parameter_groups(model, lr, {"bias": bias_lr_mult, "mask": mask_lr_mult})
    optimizer = build(groups, lr=lr, weight_decay=weight_decay, **own, **flags)
    # torch would take form and memory format from a checkpoint, which may be of another machine.
    own_form = lambda _, state: {**state, "param_groups": [{**group, **flags} for group in state["param_groups"]]}
    optimizer.register_load_state_dict_pre_hook(own_form)
    optimizer.register_load_state_dict_post_hook(_match_memory_format)
    if flags.get("fused") and optim == "sgd":
        optimizer.register_step_pre_hook(_start_momentum)
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

    The learning rate of epoch e = 1, 2, ... is timm's ``CosineLRScheduler`` at e: from ``warmup_factor * lr`` in
    ``warmup_epochs`` steps, then the cosine over ``max_epoch`` epochs to ``final_factor * lr``, as in the released
    recipe. ``state_dict`` holds only the number of finished epochs, so that a run resumed with other settings
    follows the new ones.

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
        groups = optimizer.param_groups
        kept = [group for group in groups if mask_schedule == "constant" and group.get("part") == "mask"]
        self._constant = [(group, group["lr"]) for group in kept]
        base_lr = groups[-1]["lr"]
        ends = dict(lr_min=final_factor * base_lr, warmup_lr_init=warmup_factor * base_lr)
        self._cosine = CosineLRScheduler(optimizer, max(1, max_epoch), warmup_t=warmup_epochs, **ends)
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


def _form_flags(form: str, optim: str, parameters: Sequence[nn.Parameter], dampening: float) -> dict[str, bool | None]:
    """torch's ``foreach`` and ``fused`` arguments for a form of an optimizer of ``parameters``, on their device."""
    if form not in FORMS:
        raise DPMError(f"train.optim_form '{form}' is unknown; choose one of {', '.join(FORMS)}")
    # The fused kernel starts a momentum at zero, torch's loop at the first gradient: the same only without dampening.
    has_fused = optim in FUSED and not dampening
    if form == "fused" and not has_fused:
        why = "with sgd.dampening" if optim in FUSED else f"of {optim}"
        raise DPMError(f"train.optim_form fused: there is no fused form {why}; set train.optim_form auto")
    flags: dict[str, bool | None] = {"foreach": form == "foreach", "fused": form == "fused"}
    if form == "auto":
        on_gpu = all(parameter.device.type == "cuda" for parameter in parameters)
        is_large = sum(parameter.numel() for parameter in parameters) >= LARGE
        fused = has_fused and (on_gpu or is_large)
        flags = {"foreach": False, "fused": True} if fused else {"foreach": None, "fused": None}
    return flags if optim in FUSED else {"foreach": flags["foreach"]}


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
