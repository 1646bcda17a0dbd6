"""Partial-REID: Zheng et al., Partial Person Re-identification, ICCV 2015."""

from dpm_plugin.data.datasets.two_view import ICCV_2015, PARTIAL, TwoViewDataset, two_views


class PartialREID(TwoViewDataset):
    """Partial-REID, a test set: 60 identities, 300 partial queries, 300 whole-body gallery images."""

    structure = two_views("Partial_REID", PARTIAL, "001_001.jpg", ICCV_2015, images=300, identities=60)
