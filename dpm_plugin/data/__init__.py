"""Data sets, transforms and the data manager."""

from dpm_plugin.data.datasets import (
    DATASETS,
    OccludedDuke,
    OccludedREID,
    PartialILIDS,
    PartialREID,
    PDukeMTMC,
    SyntheticOccluded,
)
from dpm_plugin.data.manager import DPMImageDataManager
from dpm_plugin.data.synthetic import SyntheticSpec
from dpm_plugin.data.transforms import build_transforms

__all__ = [
    "DATASETS",
    "DPMImageDataManager",
    "OccludedDuke",
    "OccludedREID",
    "PDukeMTMC",
    "PartialILIDS",
    "PartialREID",
    "SyntheticOccluded",
    "SyntheticSpec",
    "build_transforms",
]
