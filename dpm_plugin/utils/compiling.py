"""torch.compile with an early, plain error where it does not work on this machine."""
import torch
from torch.nn import functional as F

from dpm_plugin.utils.errors import DPMError

__all__ = ["check_backend"]


def check_backend(backend, device):
    """Compile and run one small function, so that a missing compiler is told before the first batch.

    Args:
        backend: of ``torch.compile``, "inductor" (needs a C++ compiler on a CPU and Triton on a GPU) or another
            of ``torch.compiler.list_backends()``.
        device: torch device it will run on.

    Raises:
        DPMError: the backend is unknown or can't compile here.
    """
    try:
        torch.compile(F.gelu, backend=backend)(torch.zeros(8, device=device))
    except Exception as error:  # every backend and every stage has errors of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DPMError(
            f"torch.compile with backend '{backend}' does not work here ({reason[:160]}); install the compiler "
            "it needs or set train.compile False"
        ) from error
