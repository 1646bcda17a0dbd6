"""The triplet loss and the total loss of DPM (Eq. 8)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpm_plugin.method.head_enrich import HeadEnrichLoss
from dpm_plugin.method.masked_arcface import MaskedArcFace
from dpm_plugin.utils.errors import DPMError


class SoftMarginTripletLoss(nn.Module):
    """L_tri: batch-hard triplet loss on Euclidean distances (paper section 3.4).

    For every row the farthest sample of its identity and the nearest of another.

    Args:
        margin: None for the soft margin log(1 + exp(d_p - d_n)), which the released recipe
            uses, or a number for the hinge max(0, d_p - d_n + margin). Default: None.

    Shape:
        features (B, D), labels (B,) -> scalar, float32. With candidates (C, D), candidate_labels (C,) those
        are searched instead of the batch itself; they contain the batch.

    Raises:
        DPMError: all rows have one identity, so there is no negative.
    """

    def __init__(self, margin: float | None = None) -> None:
        super().__init__()
        self.margin = margin

    def forward(
        self, features: Tensor, labels: Tensor, candidates: Tensor | None = None, candidate_labels: Tensor | None = None
    ) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            distance = torch.cdist(features, features if candidates is None else candidates.float())  # (B, C)
        same = labels[:, None] == (labels if candidate_labels is None else candidate_labels)[None, :]
        if features.device.type == "cpu" and bool(same.all()):  # on a GPU the check would stall every iteration
            raise DPMError(
                "a training batch holds one identity only, so the triplet loss has no negatives; "
                "use sampler.train_sampler RandomIdentitySampler and a batch of at least two identities"
            )
        positive = distance.masked_fill(~same, -torch.inf).amax(dim=1)
        negative = distance.masked_fill(same, torch.inf).amin(dim=1)
        gap = positive - negative
        return (F.softplus(gap) if self.margin is None else F.relu(gap + self.margin)).mean()


class DPMOutput(NamedTuple):
    """What one training forward gives the loss.

    Attributes:
        cls: class token before the neck, (B, D); the triplet loss uses it.
        embedding: after the neck, (B, D); both heads use it.
        prototypes: W, (K, D), shared by both heads.
        mask: (B, D), or None for a model without mask branch.
        head_logits: (B, N, P), or None.
    """

    cls: Tensor
    embedding: Tensor
    prototypes: Tensor
    mask: Tensor | None
    head_logits: Tensor | None


class DPMLossParts(NamedTuple):
    """Scalars of Eq. 8; ``logits`` (B, K) are the plain head's, for the accuracy."""

    total: Tensor
    cls: Tensor
    masked: Tensor
    head: Tensor
    triplet: Tensor
    logits: Tensor


class DPMLoss(nn.Module):
    """L = alpha L_cls + (1 - alpha) L_M-cls + beta L_hem + L_tri, Eq. 8.

    For a model without mask branch (``mask`` None: the paper's baseline) it is
    L_cls + L_tri.

    Args:
        alpha: weight of the plain head. Default: 0.5.
        beta: weight of the head enrich loss. Default: 0.1.
        cls_loss, mask_loss: "softmax", plain logits x W^T and x (m * W)^T, or "margin",
            ArcFace, for either head (Table 4). Default: "softmax", "margin".
        scale, margin: s and m of Eq. 7. Default: 30, 0.5.
        mask_variant, mask_renormalise: what the mask cuts (Table 5), see
            :func:`dpm_plugin.method.masked_cosine.masked_cosine`. Default: "Pn", True.
        head_input, head_reduction: see :class:`~dpm_plugin.method.head_enrich.HeadEnrichLoss`.
        label_smooth: label smoothing of both heads' cross entropy. Default: 0.
        triplet_margin: see :class:`SoftMarginTripletLoss`. Default: None, the soft margin.
        num_processes: processes that hold equal shares of the batch. Each computes the loss of its own rows, so that
            the mean over them, of the values and of the gradients, is that of the whole batch: triplets are mined
            among all rows, and a loss that is a sum over the batch (``head_reduction`` "released") is counted
            ``num_processes`` times. Default: 1.
        gather: (B, ...) -> (num_processes * B, ...), the rows of every process, differentiable; for several only.

    Shape:
        (DPMOutput, labels (B,)) -> DPMLossParts.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.1,
        cls_loss: str = "softmax",
        mask_loss: str = "margin",
        scale: float = 30.0,
        margin: float = 0.5,
        mask_variant: str = "Pn",
        mask_renormalise: bool = True,
        head_input: str = "attention",
        head_reduction: str = "mean",
        label_smooth: float = 0.0,
        triplet_margin: float | None = None,
        num_processes: int = 1,
        gather: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        for name, choice in (("cls_loss", cls_loss), ("mask_loss", mask_loss)):
            if choice not in ("softmax", "margin"):
                raise DPMError(f"{name} '{choice}' is unknown; choose 'softmax' or 'margin'")
        if not 0 <= alpha <= 1 or beta < 0:
            raise DPMError(f"alpha {alpha} must be between 0 and 1 and beta {beta} at least 0")
        self.alpha = alpha
        self.beta = beta
        self.cls_loss = cls_loss
        self.mask_loss = mask_loss
        self.arcface = MaskedArcFace(scale, margin, mask_variant, mask_renormalise)
        self.head_enrich = HeadEnrichLoss(head_input, head_reduction)
        self.triplet = SoftMarginTripletLoss(triplet_margin)
        self.label_smooth = label_smooth
        self.num_processes, self.gather = num_processes, gather

    def forward(self, output: DPMOutput, labels: Tensor) -> DPMLossParts:
        logits = plain_logits(output.embedding, output.prototypes)
        cls = self._head(self.cls_loss, output, None, labels, logits)
        triplet = self._triplet(output.cls, labels)
        if output.mask is None:
            zero = torch.zeros_like(cls)
            return DPMLossParts(cls + triplet, cls, zero, zero, triplet, logits)
        masked = self._head(self.mask_loss, output, output.mask, labels, None)
        head = self.head_enrich(output.head_logits)
        if self.head_enrich.reduction == "released":
            head = head * self.num_processes
        total = self.alpha * cls + (1 - self.alpha) * masked + self.beta * head + triplet  # Eq. 8
        return DPMLossParts(total, cls, masked, head, triplet, logits)

    def _triplet(self, features, labels):
        if self.num_processes == 1:
            return self.triplet(features, labels)
        return self.triplet(features, labels, self.gather(features), self.gather(labels))

    def _head(self, kind, output, mask, labels, logits):
        """L_cls or L_M-cls (Eq. 7): cross entropy on softmax or margin logits."""
        if kind == "margin":
            logits = self.arcface(output.embedding, output.prototypes, mask, labels)
        elif logits is None:
            # x (m * W)^T without a copy of W for each image
            logits = plain_logits(output.embedding * mask, output.prototypes)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smooth)


def plain_logits(features: Tensor, prototypes: Tensor) -> Tensor:
    """x W^T in float32, unnormalised, (B, K)."""
    with torch.autocast(features.device.type, enabled=False):
        return features.float() @ prototypes.float().T
