"""torchreid's own image engines with this package's training and evaluation."""

from typing import Any

from dpm_plugin.engine.training import TrainingMixin
from dpm_plugin.torchreid_host import ImageSoftmaxEngine, ImageTripletEngine


class StockMixin(TrainingMixin):
    """Training by one of torchreid's engines; what is frozen in the model at the start stays frozen for good."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.frozen = [parameter for parameter in self.model.parameters() if not parameter.requires_grad]

    def two_stepped_transfer_learning(self, *arguments: Any, **options: Any) -> None:
        """torchreid's fixbase epochs, which open every parameter."""
        super().two_stepped_transfer_learning(*arguments, **options)
        for parameter in self.frozen:
            parameter.requires_grad_(False)


class SoftmaxEngine(StockMixin, ImageSoftmaxEngine):
    """torchreid's ``ImageSoftmaxEngine``; further arguments: see :class:`TrainingMixin`."""


class TripletEngine(StockMixin, ImageTripletEngine):
    """torchreid's ``ImageTripletEngine``; further arguments: see :class:`TrainingMixin`."""
