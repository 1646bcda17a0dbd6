"""torchreid's own image engines with this package's training and evaluation."""

from dpm_plugin.engine.training import TrainingMixin
from dpm_plugin.torchreid_host import ImageSoftmaxEngine, ImageTripletEngine


class SoftmaxEngine(TrainingMixin, ImageSoftmaxEngine):
    """torchreid's ``ImageSoftmaxEngine``; further arguments: see :class:`TrainingMixin`."""


class TripletEngine(TrainingMixin, ImageTripletEngine):
    """torchreid's ``ImageTripletEngine``; further arguments: see :class:`TrainingMixin`."""
