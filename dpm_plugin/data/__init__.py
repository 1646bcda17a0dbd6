"""Data sets, transforms and the data manager."""

from dpm_plugin.data.datasets import DATASETS
from dpm_plugin.data.manager import DPMImageDataManager
from dpm_plugin.data.synthetic import SyntheticSpec
from dpm_plugin.data.transforms import build_transforms

__all__ = ["DATASETS", "DPMImageDataManager", "SyntheticSpec", "build_transforms"]
