"""The same seed gives the same bits: torch's deterministic kernels for the length of a run."""
import os
from contextlib import contextmanager

import torch

__all__ = ["deterministic_kernels"]

CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as torch's notes on reproducibility ask for


@contextmanager
def deterministic_kernels(enabled=True, use_gpu=False):
    """Within the block torch chooses deterministic kernels, and cudnn neither searches nor guesses.

    On a GPU an operation that has no such kernel is named in a warning, once, and runs all the same (the max pooling
    of the mask generator is one by its name, though its windows never overlap); on a CPU it is an error.

    Args:
        enabled: False changes nothing. Default: True.
        use_gpu: whether the run is on a GPU. Default: False.
    """
    if not enabled:
        yield
        return
    cudnn = torch.backends.cudnn
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
              cudnn.deterministic, cudnn.benchmark)
    os.environ.setdefault(*CUBLAS)  # read when the first matrix product on the GPU is made
    torch.use_deterministic_algorithms(True, warn_only=use_gpu)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = before[2:]
