"""Iterations with a number that is not finite: found without a transfer of their own, named, and undone."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from dpm_plugin.utils.errors import DPMError

GRADIENT = "gradient"  # begins the names of gradient norms among an iteration's numbers
ADVICE = "go on with train.amp off, or start anew with a lower train.lr"
KEPT = f"the checkpoint of the last good epoch is kept; {ADVICE}"


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor | None:
    """The norm of all gradients as a scalar on their device, or None where there is none; waits for nothing."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm() if gradients else None


def not_finite(numbers: Mapping[str, float]) -> str | None:
    """What is first not finite, "loss", "gradient" or None, among an iteration's numbers in the order they came in."""
    bad = next((name for name, value in numbers.items() if not math.isfinite(value)), None)
    return bad if bad is None else GRADIENT if bad.startswith(GRADIENT) else "loss"


def check_weights(model: nn.Module, when: str) -> None:
    """Raise DPMError if a parameter of ``model`` is not finite."""
    norms = torch._foreach_norm([parameter.detach() for parameter in model.parameters()])
    if not bool(torch.isfinite(torch.stack(norms)).all()):
        raise DPMError(f"non-finite weights {when}; {KEPT}")


class Snapshot:
    """Weights, statistics and optimizer state of one moment, copied on their device."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.tensors = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
        self.optimizer = optimizer
        self.states = {
            parameter: {name: value.clone() if torch.is_tensor(value) else value for name, value in state.items()}
            for parameter, state in optimizer.state.items()
        }

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back; may be called once."""
        for tensor, copy in self.tensors:
            tensor.copy_(copy)
        self.optimizer.state.clear()
        self.optimizer.state.update(self.states)
