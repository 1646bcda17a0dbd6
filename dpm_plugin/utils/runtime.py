"""How a run computes: device, mixed precision, torch.compile and deterministic kernels."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F

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


def check_amp(amp: str) -> str:
    """Return ``amp``; DPMError where it is not "off", "float16" or "bfloat16"."""
    if amp not in DTYPES:
        raise DPMError(f"train.amp '{amp}' is unknown; choose one of {', '.join(DTYPES)}")
    return amp


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """torch's autocast context for ``device`` and an amp name."""
    dtype = DTYPES[amp]
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
