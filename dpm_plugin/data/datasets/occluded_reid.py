"""Occluded-REID: Zhuo et al., Occluded Person Re-identification, ICME 2018."""

from dpm_plugin.data.datasets.two_view import ICME_2018, OCCLUDED, TwoViewDataset, two_views


class OccludedREID(TwoViewDataset):
    """Occluded-REID, a test set: 200 identities, 1,000 occluded queries, 1,000 whole-body gallery images."""

    structure = two_views("Occluded_REID", OCCLUDED, "001/001_01.tif", ICME_2018, images=1000, identities=200)
