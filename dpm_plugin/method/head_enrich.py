"""Head Enrich Module (HEM): push the last block's heads to look at different patches (Eq. 5, 6)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpm_plugin.utils.errors import DPMError


def head_correlation(heads: Tensor) -> Tensor:
    """A A^T of Eq. 6: the cosine of each two heads' rows, (B, N, P) to (B, N, N)."""
    heads = F.normalize(heads, dim=-1)
    return heads @ heads.transpose(1, 2)


class HeadEnrichLoss(nn.Module):
    """L_hem = || A A^T - I_N ||_F^2 with unit rows in A, Eq. 6.

    Args:
        head_input: "attention", the softmax over patches of Eq. 5 (the paper), or "logits",
            the scaled products before it (the released implementation). Default: "attention".
        reduction: "mean", the batch mean of Eq. 6, or "released", the sum over the batch
            divided by N^2. Default: "mean".

    Shape:
        head_logits (B, N, P), before softmax -> scalar, float32.
    """

    def __init__(self, head_input: str = "attention", reduction: str = "mean") -> None:
        super().__init__()
        if head_input not in ("attention", "logits"):
            raise DPMError(f"head_input '{head_input}' is unknown; choose 'attention' or 'logits'")
        if reduction not in ("mean", "released"):
            raise DPMError(f"head_reduction '{reduction}' is unknown; choose 'mean' or 'released'")
        self.head_input = head_input
        self.reduction = reduction

    def forward(self, head_logits: Tensor) -> Tensor:
        with torch.autocast(head_logits.device.type, enabled=False):
            heads = head_logits.float()  # (B, N, P); squares of half-precision values would overflow
            if self.head_input == "attention":
                heads = heads.softmax(dim=-1)  # Eq. 5
            correlation = head_correlation(heads)  # (B, N, N)
        identity = torch.eye(heads.shape[1], device=heads.device)
        total = (correlation - identity).square().sum()  # Eq. 6, summed over the batch
        return total / (heads.shape[0] if self.reduction == "mean" else heads.shape[1] ** 2)
