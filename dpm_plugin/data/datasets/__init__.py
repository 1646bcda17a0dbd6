"""The data sets that the plugin adds to torchreid, each in a file of its own."""

from dpm_plugin.data.datasets.occluded_duke import OccludedDuke
from dpm_plugin.data.datasets.occluded_reid import OccludedREID
from dpm_plugin.data.datasets.p_dukemtmc import PDukeMTMC
from dpm_plugin.data.datasets.partial_ilids import PartialILIDS
from dpm_plugin.data.datasets.partial_reid import PartialREID
from dpm_plugin.data.datasets.synthetic_occluded import SyntheticOccluded

__all__ = ["DATASETS", "OccludedDuke", "OccludedREID", "PDukeMTMC", "PartialILIDS", "PartialREID", "SyntheticOccluded"]

#: torchreid's name -> class; ``dpm_plugin.register()`` registers them all.
DATASETS = {
    "occluded_duke": OccludedDuke,
    "occluded_reid": OccludedREID,
    "p_dukemtmc": PDukeMTMC,
    "partial_reid": PartialREID,
    "partial_ilids": PartialILIDS,
    "synthetic_occluded": SyntheticOccluded,
}
