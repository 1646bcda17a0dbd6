"""ImageDPMEngine: torchreid's engine with DPM's two steps an iteration (paper section 4.1)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpm_plugin.distributed.processes import ALONE, Processes
from dpm_plugin.engine.grad_cache import encode_with_cache
from dpm_plugin.engine.non_finite import GRADIENT, gradient_norm
from dpm_plugin.engine.testing import EvaluationOptions
from dpm_plugin.engine.training import TrainingMixin
from dpm_plugin.engine.training_options import TrainingOptions
from dpm_plugin.method.losses import DPMLoss, DPMLossParts, DPMOutput
from dpm_plugin.method.model import DPM
from dpm_plugin.method.two_steps import Step, TwoSteps
from dpm_plugin.method.vit import EncoderOutput
from dpm_plugin.torchreid_host import ImageDataManager, metrics
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.runtime import autocast, check_backend, choose_amp


class ImageDPMEngine(TrainingMixin):
    """Trains a :class:`~dpm_plugin.method.model.DPM` by :class:`~dpm_plugin.method.two_steps.TwoSteps`; evaluates it.

    Args:
        datamanager, model, scheduler, use_gpu: as in torchreid's engines.
        optimizer: best one of :func:`dpm_plugin.method.recipe.build_optimizer`; any other works.
        criterion: Eq. 8. Default: ``DPMLoss()``, the paper's settings for Occluded-Duke.
        amp: "off", "float16" (with gradient scaling), "bfloat16", or "auto", float16 on a GPU alone. Default: "off".
        steps: "alternating" (the paper) or "simultaneous". Default: "alternating".
        accumulate: parts that the encoder takes a batch in, to save memory; same result, see
            :mod:`~dpm_plugin.engine.grad_cache`. Default: 1, the whole batch.
        compile_backend: of ``torch.compile`` for encoder and heads, such as "inductor". Default: None, not compiled.
        conv_layout: memory format, see :meth:`~dpm_plugin.method.model.DPM.set_conv_layout`. Default: "auto".
        grad_checkpointing: run each transformer block again in the backward pass, to save memory. Default: False.
        training, evaluation: Default: ``TrainingOptions()`` and ``EvaluationOptions()``.
        processes: those that train together, each with its share of the batch; the criterion must know them too.
            Weights and BatchNorm statistics start as rank 0's, and the statistics are rank 0's again after every
            epoch. Default: one process.

    Raises:
        DPMError: unknown choices; in training, a non-finite loss, gradient or weight.
    """

    gives_cameras = True

    def __init__(
        self,
        datamanager: ImageDataManager,
        model: DPM,
        optimizer: torch.optim.Optimizer,
        scheduler: Any = None,
        criterion: nn.Module | None = None,
        use_gpu: bool = True,
        *,
        amp: str = "off",
        steps: str = "alternating",
        accumulate: int = 1,
        compile_backend: str | None = None,
        conv_layout: str = "auto",
        grad_checkpointing: bool = False,
        training: TrainingOptions | None = None,
        evaluation: EvaluationOptions | None = None,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__(datamanager, use_gpu, training=training, evaluation=evaluation, processes=processes)
        self.amp = choose_amp(amp, self.device)
        if not hasattr(model, "encode"):
            name = type(model).__name__
            raise DPMError(f"{name} has no DPM heads; train it with loss.name softmax or triplet instead of dpm")
        if accumulate < 1:
            raise DPMError(f"train.accumulate {accumulate} must be at least 1")
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.register_model("model", model, optimizer, scheduler)
        self.criterion = criterion or DPMLoss(num_processes=processes.size, gather=processes.all_gather)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == "float16")
        self.two_steps = TwoSteps(model, steps)
        self.accumulate, self.conv_layout = accumulate, conv_layout
        if conv_layout != "auto":
            model.set_conv_layout(conv_layout)
        if grad_checkpointing:
            model.backbone.set_grad_checkpointing()
        # Compiled are the two functions, not the model: the names in its checkpoints stay as they are.
        self._encode: Callable[..., EncoderOutput] = model.encode
        self._heads: Callable[..., DPMOutput] = model.heads
        if compile_backend is not None:
            check_backend(compile_backend, self.device)
            self._encode = torch.compile(model.encode, backend=compile_backend)
            self._heads = torch.compile(model.heads, backend=compile_backend)
        if accumulate > 1:
            self._encode = partial(encode_with_cache, self._encode, accumulate)
        processes.broadcast_tensors(model.state_dict().values())
        self._gradient: Tensor | None = None  # norm of the last step's; not with float16, which expects infinite ones

    def two_stepped_transfer_learning(self, *arguments: Any, **options: Any) -> None:
        """torchreid's fixbase epochs; then sorts the open parameters into the two steps' parts."""
        super().two_stepped_transfer_learning(*arguments, **options)
        self.two_steps.sort()

    def after_epoch(self) -> None:
        """Opens both parts again; several processes take over rank 0's statistics."""
        self.two_steps.end_epoch()
        self.processes.broadcast_tensors(self.model.buffers())

    def parse_data_for_train(self, data: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, H, W), labels (B,), cameras (B,), on the device."""
        images, labels, camids = (data[key].to(self.device, non_blocking=True) for key in ("img", "pid", "camid"))
        if self.conv_layout == "channels_last":
            images = images.contiguous(memory_format=torch.channels_last)
        return images, labels, camids

    def iterate(self, data: Mapping[str, Tensor]) -> dict[str, float]:
        """One iteration: both steps, or one for both; its numbers come to the host together, at the end."""
        images, labels, camids = self.parse_data_for_train(data)
        summary: dict[str, Tensor] = {}
        for step in self.two_steps.steps():
            parts = self._train(step, images, labels, camids)
            summary.update(self._summary(parts, labels) if step.main else {"masked_2": parts.masked})
            if self._gradient is not None:
                summary[GRADIENT if step.main else f"{GRADIENT}_2"] = self._gradient
        return self._as_numbers(summary)

    def _train(self, step: Step, images: Tensor, labels: Tensor, camids: Tensor) -> DPMLossParts:
        """Update what ``step`` trains with Eq. 8."""
        self.two_steps.begin(step)
        with autocast(self.device, self.amp):
            encoded = step.encode(self._encode, images, camids)
        with autocast(self.device, self.amp):  # anew: casts made without a graph must not be found again
            parts = self.criterion(self._heads(encoded), labels)
        self._update(parts.total)
        self.on_step(parts)
        return parts

    def on_step(self, parts: DPMLossParts) -> None:
        """Called after each step with its losses; for subclasses."""

    def _update(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()
        self.processes.average_gradients(self.model.parameters())  # an overflow on one rank is one on all
        if not self.scaler.is_enabled():
            self._gradient = gradient_norm(self.model.parameters())
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _summary(self, parts: DPMLossParts, labels: Tensor) -> dict[str, Tensor]:
        masked = {"masked": parts.masked, "head": parts.head} if self.model.has_mask else {}
        accuracy = metrics.accuracy(parts.logits, labels)[0]
        return {"loss": parts.total, "cls": parts.cls, **masked, "triplet": parts.triplet, "acc": accuracy}

    def _as_numbers(self, summary: dict[str, Tensor]) -> dict[str, float]:
        """One transfer for all numbers, means over the processes; with them goes whether one was asked to stop."""
        values = [value.detach().float().reshape(()) for value in summary.values()]
        if self.processes.size == 1:
            return dict(zip(summary, torch.stack(values).tolist()))
        asked = torch.full((), float(self.stop.asked or 0), device=self.device)
        *numbers, stop = self.processes.mean(torch.stack([*values, asked])).tolist()
        if stop > 0:
            self.stop.agree()
        return dict(zip(summary, numbers))
