"""Partial-REID: Zheng et al., Partial Person Re-identification, ICCV 2015."""

from dpm_plugin.data.datasets.folders import Layout, Part
from dpm_plugin.data.datasets.two_view import GALLERY_CAMERA, PARTIAL, QUERY_CAMERA, WHOLE, TwoViewDataset


class PartialREID(TwoViewDataset):
    """Partial-REID, a test set: 60 identities, 300 partial queries, 300 whole-body gallery images.

    Camera ids: 0 for queries, 1 for the gallery (see :class:`TwoViewDataset`).
    """

    layout = Layout(
        name="partial_reid",
        folders=("Partial_REID", "Partial_REID_Dataset"),
        splits={"query": [Part((PARTIAL,), QUERY_CAMERA)], "gallery": [Part((WHOLE,), GALLERY_CAMERA)]},
        tree="Partial_REID/{partial_body_images,whole_body_images}/001_001.jpg",
        example="001_001.jpg",
        origin="from the authors of 'Partial Person Re-identification' (Zheng et al., ICCV 2015)",
        published={"query": (300, 60), "gallery": (300, 60)},
    )
