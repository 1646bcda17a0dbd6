"""ImageDPMEngine: torchreid's engine with DPM's two steps an iteration (paper section 4.1)."""

import signal

import torch

from dpm_plugin.distributed.processes import ALONE
from dpm_plugin.engine.grad_cache import encode_in_micro_batches
from dpm_plugin.engine.non_finite import gradient_norm
from dpm_plugin.engine.testing import EvaluationMixin, check_cameras
from dpm_plugin.engine.training import TrainingMixin
from dpm_plugin.method.losses import DPMLoss
from dpm_plugin.torchreid_host import Engine, metrics
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.runtime import autocast, check_amp, check_backend

STEPS = ("alternating", "simultaneous")


class ImageDPMEngine(TrainingMixin, EvaluationMixin, Engine):
    """Trains and evaluates :class:`dpm_plugin.method.model.DPM`.

    Every iteration runs two steps. Step one freezes the mask generator (HMG) and updates the
    rest, so that the holistic prototypes are trained; step two freezes the rest and updates
    the mask generator. Frozen means ``requires_grad=False``: the gradient is None and the
    optimizer leaves the parameter alone. BatchNorm statistics move in both steps. A model
    without mask branch has step one only. ``steps`` "simultaneous" runs one step that updates
    both from one forward and backward pass: cheaper, but not the paper's.

    Args:
        datamanager, optimizer, scheduler, use_gpu: as in torchreid's engines. An optimizer of
            :func:`dpm_plugin.engine.optim.build_optimizer` is expected, any other torch optimizer works.
        model: a :class:`~dpm_plugin.method.model.DPM`.
        criterion: Eq. 8. Default: ``DPMLoss()``, the paper's settings for Occluded-Duke.
        amp: "off", "float16" (with gradient scaling) or "bfloat16". Default: "off".
        steps: "alternating" (the paper) or "simultaneous". Default: "alternating".
        accumulate: micro-batches that the encoder takes a batch in, to save memory; same result, see
            :func:`~dpm_plugin.engine.grad_cache.encode_in_micro_batches`. Default: 1, the whole batch.
        compile_backend: backend of ``torch.compile`` for encoder and heads in training, such as
            "inductor". Default: None, not compiled.
        conv_layout: "auto", "channels_last" or "contiguous", see
            :meth:`~dpm_plugin.method.model.DPM.set_conv_layout`. Default: "auto".
        grad_checkpointing: keep only the input of each transformer block in the forward pass and run
            it again in the backward pass. Default: False.
        feature, mask, cameras: of the evaluation, see :class:`~dpm_plugin.engine.testing.EvaluationMixin`. Attributes
            say how checkpoints are kept and what follows a non-finite loss, see
            :class:`~dpm_plugin.engine.training.TrainingMixin`.
        run_info: dict for the ``run`` section of results.json.
        processes: :class:`~dpm_plugin.distributed.processes.Processes` that train together, each with its share of the
            batch; the criterion must know them too. Weights and BatchNorm statistics start as rank 0's, and
            the statistics are rank 0's again after every epoch. Default: one process.

    Raises:
        DPMError: unknown choices; in training, a non-finite loss, gradient or weight.
    """

    def __init__(
        self,
        datamanager,
        model,
        optimizer,
        scheduler=None,
        criterion=None,
        use_gpu=True,
        *,
        amp="off",
        steps="alternating",
        accumulate=1,
        compile_backend=None,
        conv_layout="auto",
        grad_checkpointing=False,
        feature="after",
        mask=True,
        cameras="auto",
        run_info=None,
        processes=ALONE,
    ):
        super().__init__(datamanager, use_gpu)
        if not hasattr(model, "encode"):
            raise DPMError(
                f"{type(model).__name__} has no DPM heads; train it with loss.name softmax or triplet instead of dpm"
            )
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.register_model("model", model, optimizer, scheduler)
        self.criterion = criterion or DPMLoss(processes=processes)
        self.amp = check_amp(amp)
        self.scaler = torch.amp.GradScaler(self._device.type, enabled=amp == "float16")
        if steps not in STEPS:
            raise DPMError(f"train.steps '{steps}' is unknown; choose one of {', '.join(STEPS)}")
        if accumulate < 1:
            raise DPMError(f"train.accumulate {accumulate} must be at least 1")
        self.steps, self.accumulate, self.conv_layout = steps, accumulate, conv_layout
        if conv_layout != "auto":
            model.set_conv_layout(conv_layout)
        if grad_checkpointing:
            model.backbone.set_grad_checkpointing()
        # Compiled are the two functions, not the model: the names in its checkpoints stay as they are.
        self._encode, self._heads = model.encode, model.heads
        if compile_backend is not None:
            check_backend(compile_backend, self._device)
            self._encode = torch.compile(model.encode, backend=compile_backend)
            self._heads = torch.compile(model.heads, backend=compile_backend)
        self.feature, self.mask, self.cameras = feature, mask, check_cameras(cameras)
        self.run_info = run_info or {}
        self.processes = processes
        processes.broadcast_tensors(model.state_dict().values())
        # A parameter the user froze stays frozen; torchreid would open everything every epoch.
        self._user_frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        self._parts = None
        self._gradient = None  # norm of the last step's; not with float16, whose scaler expects infinite ones

    def after_epoch(self):
        """Opens both parts again; several processes take over rank 0's statistics."""
        self._set_trainable(main=True, mask=True)
        self.processes.broadcast_tensors(self.model.buffers())

    def two_stepped_transfer_learning(self, epoch, fixbase_epoch, open_layers, model=None):
        """torchreid's fixbase epochs; then sorts the open parameters into the two steps' parts."""
        super().two_stepped_transfer_learning(epoch, fixbase_epoch, open_layers, model)
        for name, parameter in self.model.named_parameters():
            if name in self._user_frozen:
                parameter.requires_grad_(False)
        self._parts = self._open_parts()

    def _open_parts(self):
        generator = self.model.mask_generator
        mask = [p for p in generator.parameters() if p.requires_grad] if generator is not None else []
        mask_ids = {id(p) for p in mask}
        main = [p for p in self.model.parameters() if p.requires_grad and id(p) not in mask_ids]
        return {"main": main, "mask": mask}

    def _set_trainable(self, *, main, mask):
        """Freeze and open the two parts."""
        for part, trainable in (("main", main), ("mask", mask)):
            for parameter in self._parts[part]:
                parameter.requires_grad_(trainable)

    def parse_data_for_train(self, data):
        """Images (B, 3, H, W), labels (B,), cameras (B,), on the device."""
        images, labels, camids = (data[key].to(self._device, non_blocking=True) for key in ("img", "pid", "camid"))
        if self.conv_layout == "channels_last":
            images = images.contiguous(memory_format=torch.channels_last)
        return images, labels, camids

    def iterate(self, data):
        """One iteration: both steps, or one for both; its numbers come to the host together, at the end."""
        if self._parts is None:
            self._parts = self._open_parts()
        images, labels, camids = self.parse_data_for_train(data)
        trained = [part for part in ("main", "mask") if self._parts[part]]
        summary = {}
        for step in [trained] if self.steps == "simultaneous" else [[part] for part in trained]:
            parts = self._step(images, labels, camids, step)
            summary.update(self._summary(parts, labels) if "main" in step else {"masked_2": parts.masked})
            if self._gradient is not None:
                summary["gradient" if "main" in step else "gradient_2"] = self._gradient
        return self._as_numbers(summary)

    def _summary(self, parts, labels):
        summary = {
            "loss": parts.total,
            "cls": parts.cls,
            "masked": parts.masked,
            "head": parts.head,
            "triplet": parts.triplet,
            "acc": metrics.accuracy(parts.logits, labels)[0],
        }
        if not self.model.has_mask:
            del summary["masked"], summary["head"]
        return summary

    def _step(self, images, labels, camids, trained):
        """Freeze all but the parts ``trained`` and update these with Eq. 8.

        Step one has ["main"], step two ["mask"]: only the masked head's loss reaches HMG, so the encoder
        then runs without a graph. Both names together are the simultaneous step.
        """
        self.optimizer.zero_grad(set_to_none=True)  # None, not zero: the optimizer skips what is frozen
        self._set_trainable(main="main" in trained, mask="mask" in trained)
        with torch.set_grad_enabled("main" in trained), autocast(self._device, self.amp):
            encoded = self._encode_batch(images, camids)
        with autocast(self._device, self.amp):
            parts = self.criterion(self._heads(encoded), labels)
        self._update(parts.total)
        self.on_step(parts)
        return parts

    def _encode_batch(self, images, camids):
        if self.accumulate == 1:
            return self._encode(images, camids)
        return encode_in_micro_batches(self._encode, images, camids, self.accumulate)

    def on_step(self, parts):
        """Called after each step with its DPMLossParts; for subclasses and tests."""

    def _update(self, loss):
        if not self.scaler.is_enabled():
            loss.backward()
            self.processes.average_gradients(self.model.parameters())
            self._gradient = gradient_norm(self.model.parameters())
            self.optimizer.step()
            return
        self.scaler.scale(loss).backward()
        self.processes.average_gradients(self.model.parameters())  # an overflow on one rank is one on all
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _as_numbers(self, summary):
        """One transfer for all numbers, means over the processes; with them goes whether one was asked to stop."""
        values = [value.detach().float().reshape(()) for value in summary.values()]
        if self.processes.size == 1:
            return dict(zip(summary, torch.stack(values).tolist()))
        asked = torch.full((), float(self._asked or 0), device=self._device)
        *numbers, stop = self.processes.mean(torch.stack([*values, asked])).tolist()
        if stop > 0:
            self._stop_of_all = self._asked or signal.SIGTERM
        return dict(zip(summary, numbers))

    def checkpoint_state(self, name, epoch, rank1=None):
        """With the state of the gradient scaler."""
        state = super().checkpoint_state(name, epoch, rank1)
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        return state
