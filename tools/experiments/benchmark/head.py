"""Masked ArcFace (Eq. 7), forward and backward, against one image at a time; then its growth with the classes."""

from collections.abc import Callable, Iterator

import torch
from torch.nn import functional as F

from dpm_plugin.method.masked_arcface import MaskedArcFace
from experiments.benchmark.report import Comparison, compared
from experiments.benchmark.settings import Settings
from experiments.oracles import plain_head

PAPER, TINY = (64, 702, 768), (8, 30, 32)  # batch, identities of Occluded-Duke, width of ViT-B
CLASSES, TINY_CLASSES = (1_000, 10_000, 100_000), (50, 100)


def run(settings: Settings) -> Iterator[Comparison]:
    """The comparison at the paper's size, then one Comparison without contender for each class count."""
    head = MaskedArcFace()
    batch, classes, dim = settings.sizes(PAPER, TINY)
    case = _case(batch, classes, dim, settings.device)
    timings = settings.take_turns(
        {"plain": lambda: _step(plain_head.masked_arcface, *case), "ours": lambda: _step(head, *case)}
    )
    pairs = zip(timings["plain"].result, timings["ours"].result)
    difference = max(float((a - b).abs().max()) for a, b in pairs)
    name = f"masked ArcFace {batch} x {classes:,} x {dim}, float32, forward and backward"
    yield compared("head", name, timings, difference=difference)
    for classes in settings.sizes(CLASSES, TINY_CLASSES):
        case = _case(batch, classes, dim, settings.device)
        timing = settings.take_turns({"ours": lambda: _step(head, *case)})["ours"]
        yield Comparison(
            "head",
            f"growth: {batch} x {classes:,} x {dim}",
            seconds={"ours": timing.median},
            memory_mb={} if timing.memory_mb is None else {"ours": timing.memory_mb},
            size=classes,
            unit="classes",
        )


def _case(batch: int, classes: int, dim: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Features (B, D), prototypes (K, D), masks (B, D), labels (B,)."""
    generator = torch.Generator().manual_seed(0)
    features, mask = torch.randn(batch, dim, generator=generator), torch.rand(batch, dim, generator=generator)
    prototypes = torch.randn(classes, dim, generator=generator)
    labels = torch.randint(classes, (batch,), generator=generator)
    leaves = [tensor.to(device).requires_grad_() for tensor in (features, prototypes, mask)]
    return (*leaves, labels.to(device))


def _step(
    head: Callable[..., torch.Tensor],
    features: torch.Tensor,
    prototypes: torch.Tensor,
    mask: torch.Tensor,
    labels: torch.Tensor,
) -> list[torch.Tensor]:
    """The loss and its three gradients."""
    loss = F.cross_entropy(head(features, prototypes, mask, labels), labels)
    return [loss.detach(), *torch.autograd.grad(loss, (features, prototypes, mask))]
