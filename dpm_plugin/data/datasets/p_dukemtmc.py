"""P-DukeMTMC-reID: Zhuo et al., Occluded Person Re-identification, ICME 2018."""

import os

from dpm_plugin.data.datasets.folders import FolderStructure, Part
from dpm_plugin.data.datasets.occluded_duke import DUKE_NAME
from dpm_plugin.data.datasets.reid_dataset import Split
from dpm_plugin.data.datasets.two_view import ICME_2018, OCCLUDED, WHOLE, TwoViewDataset

NUM_DUKE_CAMERAS = 8


class PDukeMTMC(TwoViewDataset):
    """P-DukeMTMC-reID: occluded queries against a whole-body gallery; training uses both kinds.

    24,143 images of 1,299 identities: 12,927 of 665 for training, 2,163 queries and 9,053 gallery
    images of the other 634.

    The protocol ranks every whole-body image for every occluded query, of the same camera too. The evaluation
    discards gallery images of the query's identity *and* camera, so occluded and whole images never share a camera
    id: where every file name tells its camera, as ``0001_c2_f0046182.jpg``, an occluded image has ids 0 to 7 and a
    whole one 8 to 15, otherwise 0 and 1. To a model both are the same camera (:meth:`camera_of`), as an id would tell
    it in training what is occluded.
    """

    structure = FolderStructure(
        name="p_dukemtmc",
        folders=("P-DukeMTMC-reID", "P-DukeMTMC", "P-Duke", "P-Duke-reID"),
        splits={
            "train": [Part((("train",), OCCLUDED), 0), Part((("train",), WHOLE), 1)],
            "query": [Part((("test",), OCCLUDED), 0)],
            "gallery": [Part((("test",), WHOLE), 1)],
        },
        tree="P-DukeMTMC-reID/{train,test}/{occluded_body_images,whole_body_images}/0001/0001_c2_f0046182.jpg",
        example="0001_c2_f0046182.jpg",
        origin=ICME_2018,
        published={"train": (12927, 665), "query": (2163, 634), "gallery": (9053, 634)},
    )

    @classmethod
    def assign_cameras(cls, images: dict[str, Split]) -> dict[str, Split]:
        numbered: dict[str, Split] = {name: [] for name in images}
        for name, split in images.items():
            for path, pid, view in split:
                match = DUKE_NAME.match(os.path.basename(path))
                if match is None:
                    return images
                numbered[name].append((path, pid, NUM_DUKE_CAMERAS * view + int(match["camera"]) - 1))
        return numbered

    def camera_of(self, camid: int) -> int:
        names_tell_cameras = self.gallery[0][2] >= NUM_DUKE_CAMERAS  # else it is 1
        return camid % NUM_DUKE_CAMERAS if names_tell_cameras else 0
