"""Masked ArcFace (Eq. 7), forward and backward, against one image at a time; then its growth with the classes."""

import torch
from torch.nn import functional as F

from dpm_plugin.method.masked_arcface import MaskedArcFace
from experiments.benchmark.report import Comparison, compared
from experiments.benchmark.timing import take_turns
from experiments.oracles import plain_head

PAPER = (64, 702, 768)  # batch, identities of Occluded-Duke, width of ViT-B
TINY = (8, 30, 32)
CLASSES = (1_000, 10_000, 100_000)
TINY_CLASSES = (50, 100)


def run(settings):
    """Yields the comparison at the paper's size, then one Comparison without contender for each class count."""
    plain = plain_head
    head = MaskedArcFace()
    batch, classes, dim = TINY if settings.tiny else PAPER
    case = _case(batch, classes, dim, settings.device)
    timings = take_turns(
        {"plain": lambda: _step(plain.masked_arcface, *case), "ours": lambda: _step(head, *case)},
        rounds=settings.rounds,
        device=settings.device,
    )
    yield compared(
        "head",
        f"masked ArcFace {batch} x {classes:,} x {dim}, float32, forward and backward",
        timings,
        difference=_difference(timings["plain"].result, timings["ours"].result),
    )
    for classes in TINY_CLASSES if settings.tiny else CLASSES:
        case = _case(batch, classes, dim, settings.device)
        timing = take_turns({"ours": lambda: _step(head, *case)}, rounds=settings.rounds, device=settings.device)[
            "ours"
        ]
        yield Comparison(
            "head",
            f"growth: {batch} x {classes:,} x {dim}",
            seconds={"ours": timing.median},
            memory_mb={} if timing.memory_mb is None else {"ours": timing.memory_mb},
            size=classes,
            unit="classes",
        )


def _case(batch, classes, dim, device):
    generator = torch.Generator().manual_seed(0)
    features, mask = torch.randn(batch, dim, generator=generator), torch.rand(batch, dim, generator=generator)
    prototypes = torch.randn(classes, dim, generator=generator)
    labels = torch.randint(classes, (batch,), generator=generator)
    leaves = [tensor.to(device).requires_grad_() for tensor in (features, prototypes, mask)]
    return (*leaves, labels.to(device))


def _step(head, features, prototypes, mask, labels):
    """The loss and its three gradients."""
    loss = F.cross_entropy(head(features, prototypes, mask, labels), labels)
    return [loss.detach(), *torch.autograd.grad(loss, (features, prototypes, mask))]


def _difference(left, right):
    return max(float((a - b).abs().max()) for a, b in zip(left, right))
