"""Partial-iLIDS: Zheng et al., Partial Person Re-identification, ICCV 2015."""

from dpm_plugin.data.datasets.two_view import ICCV_2015, PARTIAL, TwoViewDataset, two_views


class PartialILIDS(TwoViewDataset):
    """Partial-iLIDS, a test set: 119 identities, one partial query and one whole-body gallery image each."""

    structure = two_views("Partial_iLIDS", PARTIAL, "001.jpg", ICCV_2015, images=119, identities=119)
