"""Where to compute."""
import torch

from dpm_plugin.utils.errors import DPMError

__all__ = ["pick_device"]


def pick_device(name=None):
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
        raise DPMError(f"device '{name}' cannot be used here: {str(error).splitlines()[0]}") from error
    return device
