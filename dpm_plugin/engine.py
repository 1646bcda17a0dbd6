"""ImageDPMEngine: torchreid's engine with DPM's two steps an iteration (paper section 4.1)."""
import torch

from dpm_plugin.distributed import ALONE
from dpm_plugin.errors import DPMError
from dpm_plugin.evaluating import EvaluationMixin, check_cameras
from dpm_plugin.losses import DPMLoss
from dpm_plugin.precision import autocast, check_amp
from dpm_plugin.torchreid_host import Engine, metrics


class ImageDPMEngine(EvaluationMixin, Engine):
    """Trains and evaluates :class:`dpm_plugin.model.DPM`.

    Every iteration runs two steps. Step one freezes the mask generator (HMG) and updates the
    rest, so that the holistic prototypes are trained; step two freezes the rest and updates
    the mask generator. Frozen means ``requires_grad=False``: the gradient is None and the
    optimizer leaves the parameter alone. BatchNorm statistics move in both steps. A model
    without mask branch has step one only.

    Args:
        datamanager, optimizer, scheduler, use_gpu: as in torchreid's engines. An optimizer of
            :func:`dpm_plugin.optim.build_optimizer` is expected, any other torch optimizer works.
        model: a :class:`~dpm_plugin.model.DPM`.
        criterion: Eq. 8. Default: ``DPMLoss()``, the paper's settings for Occluded-Duke.
        amp: "off", "float16" (with gradient scaling) or "bfloat16". Default: "off".
        feature, mask, cameras: of the evaluation, see :class:`~dpm_plugin.evaluating.EvaluationMixin`.
        run_info: dict for the ``run`` section of results.json.
        processes: :class:`~dpm_plugin.distributed.Processes` that train together, each with its share of the
            batch; the criterion must know them too. Weights and BatchNorm statistics start as rank 0's, and
            the statistics are rank 0's again after every epoch. Default: one process.

    Raises:
        DPMError: unknown choices; in training, a non-finite loss or weight.
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
        self.feature, self.mask, self.cameras = feature, mask, check_cameras(cameras)
        self.run_info = run_info or {}
        self.processes = processes
        processes.copy_from_main(model.state_dict().values())
        # A parameter the user froze stays frozen; torchreid would open everything every epoch.
        self._user_frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        self._parts = None

    def after_epoch(self):
        """Opens both parts again and stops before the checkpoint of a diverged epoch."""
        self._set_trainable(main=True, mask=True)
        self._check_weights()
        self.processes.copy_from_main(self.model.buffers())

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
        return tuple(data[key].to(self._device, non_blocking=True) for key in ("img", "pid", "camid"))

    def forward_backward(self, data):
        """One iteration: both steps. Returns the numbers that torchreid prints and logs."""
        if self._parts is None:
            self._parts = self._open_parts()
        images, labels, camids = self.parse_data_for_train(data)
        summary = {}
        if self._parts["main"]:
            parts = self._step_main(images, labels, camids)
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
        if self._parts["mask"]:
            summary["masked_2"] = self._step_mask(images, labels, camids).masked
        return self._as_numbers(summary)

    def _step_main(self, images, labels, camids):
        """Step one: HMG frozen, everything else updated with Eq. 8."""
        self._set_trainable(main=True, mask=False)
        with autocast(self._device, self.amp):
            parts = self.criterion(self.model.heads(self.model.encode(images, camids)), labels)
        self._update(parts.total)
        self.on_step(parts)
        return parts

    def _step_mask(self, images, labels, camids):
        """Step two: everything but HMG frozen, HMG updated with Eq. 8.

        Only the masked head's loss reaches HMG, so the encoder runs without a graph.
        """
        self._set_trainable(main=False, mask=True)
        with torch.no_grad(), autocast(self._device, self.amp):
            encoded = self.model.encode(images, camids)
        with autocast(self._device, self.amp):
            parts = self.criterion(self.model.heads(encoded), labels)
        self._update(parts.total)
        self.on_step(parts)
        return parts

    def on_step(self, parts):
        """Called after each of the two steps with its DPMLossParts; for subclasses and tests."""

    def _update(self, loss):
        self.optimizer.zero_grad(set_to_none=True)  # None, not zero: the optimizer skips what is frozen
        if not self.scaler.is_enabled():
            loss.backward()
            self.processes.average_gradients(self.model.parameters())
            self.optimizer.step()
            return
        self.scaler.scale(loss).backward()
        self.processes.average_gradients(self.model.parameters())  # an overflow on one rank is one on all
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _as_numbers(self, summary):
        """One transfer for all numbers, means over the processes; stops on a non-finite one."""
        numbers = torch.stack([value.detach().float().reshape(()) for value in summary.values()])
        summary = dict(zip(summary, self.processes.mean(numbers).tolist()))
        bad = [name for name, value in summary.items() if value != value or abs(value) == float("inf")]
        if bad:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in summary.items())
            raise DPMError(
                f"non-finite loss in epoch {self.epoch + 1}, iteration {self.batch_idx + 1} of {self.num_batches} "
                f"({shown}); the checkpoint of the last good epoch is kept; lower train.lr or switch train.amp off"
            )
        return summary

    def _check_weights(self):
        norms = torch._foreach_norm([p.detach() for p in self.model.parameters()])
        if not bool(torch.isfinite(torch.stack(norms)).all()):
            raise DPMError(
                f"non-finite weights after epoch {self.epoch + 1}; the checkpoint of the last good epoch is kept; "
                "lower train.lr or switch train.amp off"
            )

    def checkpoint_state(self, name, epoch, rank1=None):
        """With the state of the gradient scaler."""
        state = super().checkpoint_state(name, epoch, rank1)
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        return state
