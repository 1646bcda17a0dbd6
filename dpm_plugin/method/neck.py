"""BN neck: BatchNorm between the class token and the heads, without a trainable shift."""
import torch
from torch import nn


class BNNeck(nn.BatchNorm1d):
    """BatchNorm1d whose bias is a buffer, starting at zero.

    The released recipe freezes this bias. As a buffer it stays frozen under any engine: torchreid's
    set ``requires_grad`` on every parameter at the start of every epoch. Its name in a state
    dict is the usual one.

    Shape:
        (B, D) -> (B, D).
    """

    def __init__(self, dim):
        super().__init__(dim)
        bias = torch.zeros(dim)
        del self.bias
        self.register_buffer("bias", bias)
