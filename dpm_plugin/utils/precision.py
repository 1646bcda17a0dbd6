"""Automatic mixed precision by name."""
import torch

from dpm_plugin.utils.errors import DPMError

DTYPES = {"off": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


def check_amp(amp):
    """Return ``amp`` if it is "off", "float16" or "bfloat16".

    Raises:
        DPMError: it is not.
    """
    if amp not in DTYPES:
        raise DPMError(f"train.amp '{amp}' is unknown; choose one of {', '.join(DTYPES)}")
    return amp


def autocast(device, amp):
    """torch's autocast context for ``device`` and an amp name."""
    dtype = DTYPES[amp]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
