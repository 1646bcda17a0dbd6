"""BatchNorm over the batches of all processes (``train.sync_bn``)."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from dpm_plugin.distributed.processes import Processes


class SyncBatchNorm(_BatchNorm):
    """torch's ``nn.SyncBatchNorm``, which works on GPUs only, for the CPU: (B, C) or (B, C, h, w) -> the same.

    Mean and variance are summed over the processes with gradients, so that in training output, gradients and running
    statistics are those of one process with the whole batch. Every process must have the same number of rows.
    """

    def __init__(self, num_features: int, eps: float, momentum: float, processes: Processes) -> None:
        super().__init__(num_features, eps, momentum)
        self.processes = processes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        values = x.float()
        mean = self._over_processes(values.mean(axes))  # (C,)
        centred = values - mean.view(shape)
        variance = self._over_processes(centred.square().mean(axes))  # (C,)
        self._track(mean.detach(), variance.detach(), self.processes.size * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _over_processes(self, mean):
        return self.processes.sum(mean) / self.processes.size

    @torch.no_grad()
    def _track(self, mean, variance, count):
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)


def synchronise_batch_norm(model: nn.Module, processes: Processes) -> None:
    """Replace every BatchNorm of ``model`` by a synchronised one with the same parameters and buffers.

    On a GPU that is torch's, elsewhere the one above: call it when the model is on its device.
    """
    if processes.size == 1:
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, _synchronised(child, processes))


def _synchronised(module, processes):
    shape = module.num_features, module.eps, module.momentum
    new = nn.SyncBatchNorm(*shape) if module.running_mean.is_cuda else SyncBatchNorm(*shape, processes)
    # As they are: the neck's bias is a buffer, which torch's own conversion cannot assign.
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        delattr(new, name)
        register = new.register_parameter if isinstance(value, nn.Parameter) else new.register_buffer
        register(name, value)
    new.train(module.training)
    return new
