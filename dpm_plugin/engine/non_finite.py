"""Iterations with a number that is not finite: found without a transfer of their own, named, and undone."""

import math

import torch

GRADIENT = "gradient"  # begins the names of gradient norms among an iteration's numbers


def gradient_norm(parameters):
    """The norm of all gradients as a tensor on their device, or None where there is none; waits for nothing."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm() if gradients else None


def not_finite(numbers):
    """What is first not finite among an iteration's numbers, which stand in the order they came in.

    "loss", "gradient" or None: a gradient of step one that is not finite spoils the loss of step two.
    """
    bad = next((name for name, value in numbers.items() if not math.isfinite(value)), None)
    return bad if bad is None else GRADIENT if bad.startswith(GRADIENT) else "loss"


def describe(numbers):
    """The numbers in one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


class Snapshot:
    """Weights, statistics and optimizer state of one moment, copied on their device.

    Args:
        model, optimizer: as they are now.
    """

    def __init__(self, model, optimizer):
        self.tensors = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
        self.optimizer = optimizer
        self.states = {
            parameter: {name: _copied(value) for name, value in state.items()}
            for parameter, state in optimizer.state.items()
        }

    @torch.no_grad()
    def restore(self):
        """Put everything back; may be called once."""
        for tensor, copy in self.tensors:
            tensor.copy_(copy)
        self.optimizer.state.clear()
        self.optimizer.state.update(self.states)


def _copied(value):
    return value.clone() if isinstance(value, torch.Tensor) else value
