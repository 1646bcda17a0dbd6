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
    discards gallery images of the query's identity *and* camera, so gallery images have ids of their own, 8 to 15 for
    cameras 0 to 7; to a model they are of those (``test_cameras``), as an id of its own would tell what is occluded.
    Cameras are taken from file names such as ``0001_c2_f0046182.jpg``; where one does not tell it, all are camera 0.
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

    test_cameras = {NUM_DUKE_CAMERAS + camera: camera for camera in range(NUM_DUKE_CAMERAS)}

    @classmethod
    def assign_cameras(cls, images: dict[str, Split]) -> dict[str, Split]:
        matches = {path: DUKE_NAME.match(os.path.basename(path)) for split in images.values() for path, *_ in split}
        camera = {path: int(match["camera"]) - 1 for path, match in matches.items() if match}
        if len(camera) < len(matches):
            camera = dict.fromkeys(matches, 0)
        apart = {"gallery": NUM_DUKE_CAMERAS}
        return {
            name: [(path, pid, camera[path] + apart.get(name, 0)) for path, pid, _ in split]
            for name, split in images.items()
        }
