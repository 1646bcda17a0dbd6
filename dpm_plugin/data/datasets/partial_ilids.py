"""Partial-iLIDS: Zheng et al., Partial Person Re-identification, ICCV 2015."""

from dpm_plugin.data.datasets.folders import Layout, Part
from dpm_plugin.data.datasets.two_view import GALLERY_CAMERA, PARTIAL, QUERY_CAMERA, WHOLE, TwoViewDataset


class PartialILIDS(TwoViewDataset):
    """Partial-iLIDS, a test set: 119 identities, one partial query and one whole-body gallery image each.

    Camera ids: 0 for queries, 1 for the gallery (see :class:`TwoViewDataset`).
    """

    layout = Layout(
        name="partial_ilids",
        folders=("Partial_iLIDS", "Partial_iLIDS_Dataset"),
        splits={"query": [Part((PARTIAL,), QUERY_CAMERA)], "gallery": [Part((WHOLE,), GALLERY_CAMERA)]},
        tree="Partial_iLIDS/{partial_body_images,whole_body_images}/001.jpg",
        example="001.jpg",
        origin="from the authors of 'Partial Person Re-identification' (Zheng et al., ICCV 2015)",
        published={"query": (119, 119), "gallery": (119, 119)},
    )
