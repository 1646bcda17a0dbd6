"""How a run computes: device, mixed precision, torch.compile, deterministic kernels, an optimizer's kernels."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import first_line


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The torch device of this name; None for the GPU where there is one, else the CPU.

    Raises:
        DPMError: it cannot be used here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DPMError(f"device '{name}' cannot be used here: {first_line(error)}") from error
    return device


DTYPES = {"off": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
AMP = (*DTYPES, "auto")  # the values of train.amp


def choose_amp(amp: str, device: torch.device) -> str:
    """A name of ``AMP`` to "off", "float16" or "bfloat16": "auto" is "float16" on a GPU and "off" on a CPU.

    Says in one line where a CPU changes that, or is asked for float16. DPMError for an unknown name.
    """
    if amp not in AMP:
        raise DPMError(f"train.amp '{amp}' is unknown; choose one of {', '.join(AMP)}")
    if device.type == "cpu" and amp == "auto":
        print("=> train.amp auto: off on a CPU; bfloat16 may be faster, float16 is many times slower")
    elif device.type == "cpu" and amp == "float16":
        print("=> train.amp float16 is many times slower than off on a CPU; auto is float16 on a GPU only")
    return _resolved(amp, device)


def _resolved(amp: str, device: torch.device) -> str:
    return amp if amp != "auto" else "float16" if device.type == "cuda" else "off"


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """torch's autocast context for ``device`` and a name of ``AMP``."""
    dtype = DTYPES[_resolved(amp, device)]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def check_backend(backend: str, device: torch.device) -> None:
    """Compile and run one small function, so that a missing compiler is a DPMError before the first batch.

    Args:
        backend: of ``torch.compile``: "inductor" (needs a C++ compiler on a CPU and Triton on a GPU) or another.
    """
    try:
        torch.compile(F.gelu, backend=backend)(torch.zeros(8, device=device))
    except Exception as error:  # every backend and every stage has errors of its own
        problem = f"torch.compile with backend '{backend}' does not work here ({first_line(error)[:160]})"
        raise DPMError(f"{problem}; install the compiler it needs or set train.compile False") from error


@contextmanager
def deterministic_kernels(enabled: bool = True, use_gpu: bool = False) -> Iterator[None]:
    """Within the block torch chooses deterministic kernels, and cudnn neither searches nor guesses.

    With ``use_gpu`` an operation that has no such kernel is named in a warning, once, and runs all the same (the max
    pooling of the mask generator is one by its name, though its windows never overlap); on a CPU it is an error.
    """
    if not enabled:
        yield
        return
    cudnn = torch.backends.cudnn
    kernels = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.deterministic, cudnn.benchmark
    # As torch's notes on reproducibility ask for; read when the first matrix product on the GPU is made
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=use_gpu)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(kernels[0], warn_only=kernels[1])
        cudnn.deterministic, cudnn.benchmark = flags


FORMS = ("auto", "loop", "foreach", "fused")
FUSED = ("sgd", "adam", "amsgrad", "adamw")  # the ones torch has fused kernels for
LARGE = 20_000_000  # parameters from which the fused kernels are chosen on a CPU: the others read memory several times


def optimizer_flags(
    form: str, optim: str, parameters: Sequence[nn.Parameter], dampening: float
) -> dict[str, bool | None]:
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


def keep_optimizer_flags(optimizer: Optimizer, flags: dict[str, bool | None]) -> None:
    """Make ``optimizer`` keep its form and its tensors' memory format when it takes up a checkpoint's state.

    torch would take the form from the checkpoint, too, which may be of another machine.
    """

    def own_flags(optimizer: Optimizer, state: dict) -> dict:
        return {**state, "param_groups": [{**group, **flags} for group in state["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(own_flags)
    optimizer.register_load_state_dict_post_hook(_match_memory_format)
    if flags.get("fused") and isinstance(optimizer, torch.optim.SGD):
        optimizer.register_step_pre_hook(_start_momentum)


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
