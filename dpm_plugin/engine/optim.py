"""One optimizer and one schedule for both of DPM's steps."""

import torch
from timm.scheduler import CosineLRScheduler

from dpm_plugin.utils.errors import DPMError

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
        form: "auto", "loop", "foreach" or "fused", see :func:`~dpm_plugin.engine.optim.form_flags`. Default: "auto".
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


FORMS = ("auto", "loop", "foreach", "fused")
FUSED = ("sgd", "adam", "amsgrad", "adamw")  # the ones torch has fused kernels for
LARGE = 20_000_000  # parameters from which the fused kernels are chosen on a CPU: the others read memory several times


def form_flags(form, optim, parameters, dampening=0.0):
    """torch's ``foreach`` and ``fused`` arguments for a form. All forms are equal up to rounding.

    Args:
        form: "loop", "foreach", "fused", or "auto": fused on a GPU, where it also spares the gradient scaler
            of float16 a wait for the device in every step, and for models of 20 million parameters or more;
            torch's own choice elsewhere.
        optim: name of the optimizer.
        parameters: what it will hold, already on their device.
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
    if form == "auto":
        on_gpu = all(parameter.device.type == "cuda" for parameter in parameters)
        is_large = sum(parameter.numel() for parameter in parameters) >= LARGE
        form = "fused" if has_fused and (on_gpu or is_large) else None
    flags = {"foreach": form == "foreach", "fused": form == "fused"} if form else {"foreach": None, "fused": None}
    return flags if optim in FUSED else {"foreach": flags["foreach"]}


def keep_form(optimizer, flags):
    """Make ``optimizer`` keep its form and its tensors' layout when it takes up a checkpoint's state.

    torch would take the form from the checkpoint, too, which may be of another machine.
    """

    def own_flags(optimizer, state):
        return {**state, "param_groups": [{**group, **flags} for group in state["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(own_flags)
    optimizer.register_load_state_dict_post_hook(_match_layout)
    if flags.get("fused") and isinstance(optimizer, torch.optim.SGD):
        optimizer.register_step_pre_hook(_start_momentum)
    return optimizer


@torch.no_grad()
def _match_layout(optimizer):
    # A kernel that walks over parameter and state side by side needs one layout (train.conv_layout).
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)


def _start_momentum(optimizer, args, kwargs):
    # The fused kernel fails on a group of which some parameters have a momentum and others, frozen so far, none.
    for group in optimizer.param_groups:
        if group["momentum"] == 0:
            continue
        for parameter in group["params"]:
            if parameter.grad is not None and optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
