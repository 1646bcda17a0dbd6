"""Data sets, transforms and the data manager."""

from dpm_plugin.data.datasets.occluded_duke import OccludedDuke
from dpm_plugin.data.datasets.occluded_reid import OccludedREID
from dpm_plugin.data.datasets.p_dukemtmc import PDukeMTMC
from dpm_plugin.data.datasets.partial_ilids import PartialILIDS
from dpm_plugin.data.datasets.partial_reid import PartialREID
from dpm_plugin.data.manager import DPMImageDataManager
from dpm_plugin.data.synthetic import SyntheticOccluded, SyntheticSpec
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

#: torchreid's name -> class; ``dpm_plugin.register()`` registers them all.
DATASETS = {
    "occluded_duke": OccludedDuke,
    "occluded_reid": OccludedREID,
    "p_dukemtmc": PDukeMTMC,
    "partial_reid": PartialREID,
    "partial_ilids": PartialILIDS,
    "synthetic_occluded": SyntheticOccluded,
}
