"""An iteration of the engine against two full passes with every gradient; then option after option of it."""

import gc
import types
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch

from dpm_plugin.engine.engine import ImageDPMEngine
from dpm_plugin.method.model import DPM
from dpm_plugin.method.recipe import build_optimizer
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.runtime import autocast
from experiments.benchmark.report import Comparison, compared
from experiments.benchmark.settings import Settings
from experiments.oracles import plain_head, plain_step

CAMERAS = 8
PAPER = dict(img_size=(256, 128), stride=16)  # ViT-B/16
TINY = dict(
    backbone="vit_tiny_patch16_224", img_size=(64, 32), patch_size=8, stride=8, embed_dim=24, depth=2, num_heads=3
)


class Case(NamedTuple):
    """What is trained: options of :class:`~dpm_plugin.method.model.DPM`, images a batch, identities, precision."""

    model: dict[str, object]
    batch: int
    classes: int
    amp: str

    def __str__(self) -> str:
        name = "tiny ViT" if "depth" in self.model else "ViT-B/16"
        height, width = self.model["img_size"]
        precision = "float32" if self.amp == "off" else self.amp
        return f"{name} {height} x {width}, stride {self.model['stride']}, batch {self.batch}, {precision}"


def case(settings: Settings) -> Case:
    """The :class:`Case` of the device: the paper's on a GPU, what a CPU can bear there."""
    if settings.tiny:
        return Case(TINY, 8, 5, "off")
    if settings.device.type == "cuda":
        return Case(dict(PAPER, stride=11), 64, 702, "float16")
    return Case(PAPER, 8, 702, "off")


def build(case: Case, device: torch.device, num_cameras: int = CAMERAS) -> DPM:
    """A DPM with random weights and no stochastic depth, whose draws would differ between contenders."""
    torch.manual_seed(0)
    model = DPM(case.classes, drop_path=0.0, num_cameras=num_cameras, **case.model).to(device)
    torch.nn.init.normal_(model.mask_generator.linear.weight, std=0.02)  # at its zero start it passes no gradient on
    return model


def run(settings: Settings) -> Iterator[Comparison]:
    """The engine's iteration against the plain one, then option after option against the default."""
    what = case(settings)
    data = _batch(what, settings.device)
    model = build(what, settings.device)
    optimizer = build_optimizer(model)
    yield _against_plain(settings, what, _engine(model, optimizer, settings.device, amp=what.amp), data)
    gc.collect()  # the plain one's model and optimizers
    yield from _options(settings, what, model, optimizer, data)


def _against_plain(settings: Settings, what: Case, engine: ImageDPMEngine, data: dict[str, torch.Tensor]) -> Comparison:
    precision = partial(autocast, settings.device, what.amp) if what.amp != "off" else nullcontext
    theirs = build(what, settings.device).train()
    scale = what.amp == "float16"
    plain = plain_step.TwoSteps(theirs, plain_head.masked_arcface, precision=precision, scale=scale)
    our_losses, their_losses = [], []  # the five losses of every step
    engine.on_step = lambda parts: our_losses.append(torch.stack([value.detach() for value in parts[:5]]))
    timings = settings.take_turns(
        {  # ours first: the other then finds freed memory, and its peak is if anything too low
            "ours": partial(engine.forward_backward, data),
            "plain": lambda: their_losses.extend(torch.tensor(plain(data["img"], data["pid"], data["camid"]))),
        }
    )
    engine.on_step = lambda parts: None
    pairs = [(torch.stack(our_losses).cpu(), torch.stack(their_losses))]
    pairs += zip(engine.model.parameters(), plain.model.parameters())
    difference = max(float((a.detach() - b.detach()).abs().max()) for a, b in pairs)
    return compared("step", f"two-step iteration, {what}", timings, difference=difference)


def _options(
    settings: Settings, what: Case, model: DPM, optimizer: torch.optim.Optimizer, data: dict[str, torch.Tensor]
) -> Iterator[Comparison]:
    engine = partial(_engine, model, optimizer, settings.device, amp=what.amp)
    calls = {"default": engine(), "simultaneous": engine(steps="simultaneous"), "accumulate 4": engine(accumulate=4)}
    for form in ("loop", "foreach") if settings.device.type == "cuda" else ("foreach", "fused"):
        other = build_optimizer(model, form=form)
        other.load_state_dict(optimizer.state_dict())  # the same momentum tensors: no memory of their own
        calls[f"optim_form {form}"] = _engine(model, other, settings.device, amp=what.amp)
    for layout in ("channels_last", "contiguous"):
        other = build(what, settings.device)
        calls[f"conv_layout {layout}"] = _engine(
            other, build_optimizer(other), settings.device, amp=what.amp, conv_layout=layout
        )
    if not settings.tiny:  # it takes a minute to compile
        try:
            calls["compile"] = engine(compile_backend="inductor")
        except DPMError as error:
            print(f"compile is left out: {error}")
    calls = {contender: partial(each.forward_backward, data) for contender, each in calls.items()}
    calls["grad_checkpointing"] = partial(_checkpointed, model, calls["default"])
    timings = settings.take_turns(calls)
    for contender in list(timings)[1:]:
        yield compared("step", f"{contender}, {what}", timings, ours=contender, plain="default")


def _checkpointed(model: DPM, call: Callable[[], object]) -> object:
    model.backbone.set_grad_checkpointing(True)
    try:
        return call()
    finally:
        model.backbone.set_grad_checkpointing(False)


def _engine(model, optimizer, device, **options):
    manager = types.SimpleNamespace(train_loader=[], test_loader={}, sources=["random"])
    model.train().requires_grad_(True)  # another engine may have left it in the middle of its two steps
    engine = ImageDPMEngine(manager, model, optimizer, use_gpu=device.type == "cuda", **options)
    # As torchreid does when an epoch starts.
    engine.two_stepped_transfer_learning(0, 0, None)
    engine.num_batches, engine.batch_idx = 1, 0
    return engine


def _batch(what: Case, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch on the device, four images an identity."""
    generator = torch.Generator().manual_seed(0)
    data = {
        "img": torch.randn(what.batch, 3, *what.model["img_size"], generator=generator),
        "pid": torch.arange(what.batch) // 4 % what.classes,
        "camid": torch.randint(CAMERAS, (what.batch,), generator=generator),
    }
    return {key: value.to(device) for key, value in data.items()}
