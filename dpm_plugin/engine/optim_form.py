"""How an optimizer walks over its parameters: one by one, as lists of tensors (foreach), or in fused kernels."""
import torch

from dpm_plugin.utils.errors import DPMError

__all__ = ["FORMS", "form_flags", "keep_form"]

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
