"""Occluded-REID: Zhuo et al., Occluded Person Re-identification, ICME 2018."""

from dpm_plugin.data.datasets.folders import Layout, Part
from dpm_plugin.data.datasets.two_view import GALLERY_CAMERA, OCCLUDED, QUERY_CAMERA, WHOLE, TwoViewDataset

ICME_2018 = (
    "from the authors of 'Occluded Person Re-identification' (Zhuo et al., ICME 2018), "
    "https://github.com/tinajia2012/ICME2018_Occluded-Person-Reidentification_datasets"
)


class OccludedREID(TwoViewDataset):
    """Occluded-REID, a test set: 200 identities, 1,000 occluded queries, 1,000 whole-body gallery images.

    Camera ids: 0 for queries, 1 for the gallery (see :class:`TwoViewDataset`).
    """

    layout = Layout(
        name="occluded_reid",
        folders=("Occluded_REID", "Occluded_REID_Dataset"),
        splits={"query": [Part((OCCLUDED,), QUERY_CAMERA)], "gallery": [Part((WHOLE,), GALLERY_CAMERA)]},
        tree="Occluded_REID/{occluded_body_images,whole_body_images}/001/001_01.tif",
        example="001_01.tif",
        origin=ICME_2018,
        published={"query": (1000, 200), "gallery": (1000, 200)},
    )
