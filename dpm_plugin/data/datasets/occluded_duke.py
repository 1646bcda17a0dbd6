"""Occluded-DukeMTMC: Miao et al., Pose-Guided Feature Alignment for Occluded Person Re-ID, ICCV 2019."""

import re

from dpm_plugin.data.datasets.folders import FolderStructure, Part, parse_name
from dpm_plugin.data.datasets.reid_dataset import ReidImageDataset

#: 0001_c2_f0046182.jpg: person 1, camera 2 of 8, frame 46182
DUKE_NAME = re.compile(r"(?P<pid>[0-9]{1,9})_c(?P<camera>[1-8])(?![0-9])")


class OccludedDuke(ReidImageDataset):
    """Occluded-DukeMTMC: occluded queries, 8 cameras (camera ids 0 to 7).

    15,618 training images of 702 identities, 2,210 queries of 519, 17,661 gallery images of 1,110.
    1,870 images are published as query and as gallery image; the evaluation never ranks a query's own
    copy, which has its identity and camera.
    """

    structure = FolderStructure(
        name="occluded_duke",
        folders=("Occluded_Duke", "Occluded_DukeMTMC", "Occluded_DukeMTMC_reID", "Occluded_Duke_reID"),
        splits={
            "train": [Part((("bounding_box_train",),))],
            "query": [Part((("query",),))],
            "gallery": [Part((("bounding_box_test",),))],
        },
        tree="Occluded_Duke/{bounding_box_train,query,bounding_box_test}/0001_c2_f0046182.jpg",
        example="0001_c2_f0046182.jpg",
        origin=(
            "made from your own DukeMTMC-reID.zip by dpm prepare-occduke and the lists published "
            "beside 'Pose-Guided Feature Alignment for Occluded Person Re-Identification' (ICCV 2019)"
        ),
        published={"train": (15618, 702), "query": (2210, 519), "gallery": (17661, 1110)},
    )

    @classmethod
    def parse(cls, path: str, view: int) -> tuple[int, int]:
        match = parse_name(DUKE_NAME, path, cls.structure)
        return int(match["pid"]), int(match["camera"]) - 1
