"""The two alternating steps of an iteration (paper section 4.1): freeze HMG and update the rest, then the reverse."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dpm_plugin.method.vit import EncoderOutput
from dpm_plugin.utils.errors import DPMError


class Step(NamedTuple):
    """What one step trains; everything else is frozen.

    Attributes:
        main: encoder, neck and prototypes W: everything but the mask generator.
        mask: the hierarchical mask generator (HMG).
    """

    main: bool
    mask: bool

    def encode(self, encoder: Callable[..., EncoderOutput], images: Tensor, camids: Tensor | None) -> EncoderOutput:
        """``encoder(images, camids)``, without a graph in step two: there only the masked head's loss has a gradient.

        Args:
            encoder: ``model.encode``, or the same compiled or in parts.
            images, camids: (B, 3, H, W) and (B,).
        """
        with torch.set_grad_enabled(self.main):
            return encoder(images, camids)


STEP_ONE = Step(main=True, mask=False)  # freeze HMG, update the rest: it trains the holistic prototypes
STEP_TWO = Step(main=False, mask=True)  # freeze the rest, update HMG
ORDERS = {"alternating": (STEP_ONE, STEP_TWO), "simultaneous": (Step(main=True, mask=True),)}


class TwoSteps:
    """Freezes and opens the two parts of a DPM in turn, every iteration.

    Frozen means ``requires_grad=False`` with a gradient of None, which every torch optimizer skips: no momentum
    or weight decay moves the parameter, so that one optimizer serves both steps. BatchNorm statistics move in
    both. "simultaneous" updates both parts from one forward and backward pass: cheaper, but not the paper's.

    Args:
        model: a :class:`~dpm_plugin.method.model.DPM`. What is frozen in it now stays frozen for good.
        order: "alternating" (the paper) or "simultaneous". Default: "alternating".

    Raises:
        DPMError: an unknown order.
    """

    def __init__(self, model: nn.Module, order: str = "alternating") -> None:
        if order not in ORDERS:
            raise DPMError(f"train.steps '{order}' is unknown; choose one of {', '.join(ORDERS)}")
        self.model, self.order = model, order
        self.frozen_by_user = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        self.sort()

    def sort(self) -> None:
        """Sort the parameters that are open now into the two parts; a closed one takes part in no step."""
        parts: dict[str, list[nn.Parameter]] = {"main": [], "mask": []}
        for name, parameter in self.model.named_parameters():
            if name in self.frozen_by_user:
                parameter.requires_grad_(False)
            if parameter.requires_grad:
                parts["mask" if name.startswith("mask_generator.") else "main"].append(parameter)
        self.parts = parts

    def steps(self) -> list[Step]:
        """The steps of an iteration in their order, without parts that have no open parameter (a baseline's HMG)."""
        open_parts = {name: bool(parameters) for name, parameters in self.parts.items()}
        steps = (
            Step(step.main and open_parts["main"], step.mask and open_parts["mask"]) for step in ORDERS[self.order]
        )
        return [step for step in steps if any(step)]

    def begin(self, step: Step) -> None:
        """Freeze all that ``step`` does not train, open what it does, and drop every gradient."""
        self.model.zero_grad(set_to_none=True)
        self._open(step)

    def end_epoch(self) -> None:
        """Open both parts again."""
        self._open(Step(main=True, mask=True))

    def _open(self, step: Step) -> None:
        for part, parameters in self.parts.items():
            for parameter in parameters:
                parameter.requires_grad_(getattr(step, part))
