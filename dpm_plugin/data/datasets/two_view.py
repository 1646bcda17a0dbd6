"""What test sets of two views share: occluded (or partial) queries, whole-body gallery, no cameras."""

import re
from pathlib import Path

from dpm_plugin.data.datasets.folders import FolderStructure, Part, parse_name
from dpm_plugin.data.datasets.reid_dataset import ReidImageDataset
from dpm_plugin.utils.errors import DPMError

OCCLUDED = ("occluded_body_images", "occluded_body", "occluded", "query")
PARTIAL = ("partial_body_images", "partial_body", "partial", "probe", "query")
WHOLE = ("whole_body_images", "whole_body", "whole", "gallery")

#: 001_01.tif, 001.jpg: the number in front is the person
PERSON_NAME = re.compile(r"(?P<pid>[0-9]{1,9})(?=[_.-])")
ICME_2018 = (
    "from the authors of 'Occluded Person Re-identification' (Zhuo et al., ICME 2018), "
    "https://github.com/tinajia2012/ICME2018_Occluded-Person-Reidentification_datasets"
)
ICCV_2015 = "from the authors of 'Partial Person Re-identification' (Zheng et al., ICCV 2015)"


class TwoViewDataset(ReidImageDataset):
    """Queries have camera 0 and the gallery camera 1.

    These sets know no cameras, and their protocol ranks every gallery image: so the evaluation's rule (no gallery
    image of the query's identity and camera) discards nothing.
    """

    @classmethod
    def parse(cls, path: str, view: int) -> tuple[int, int]:
        pid, folder = int(parse_name(PERSON_NAME, path, cls.structure)["pid"]), Path(path).parent.name
        # Where images lie in one folder per person, its number is theirs.
        if folder.isdecimal() and folder.isascii() and folder.lstrip("0") != str(pid).lstrip("0"):
            raise DPMError(f"'{path}' is of person {pid} by its name but lies in folder '{folder}'; move it away")
        return pid, view


def two_views(
    folder: str, views: tuple[str, ...], example: str, origin: str, images: int, identities: int
) -> FolderStructure:
    """The folder structure of a set with as many queries, in a folder of spellings ``views``, as gallery images.

    ``folder`` in lower case is the set's name; ``example`` is the path of an image below the folder of its view.
    """
    return FolderStructure(
        name=folder.lower(),
        folders=(folder, f"{folder}_Dataset"),
        splits={"query": [Part((views,), 0)], "gallery": [Part((WHOLE,), 1)]},
        tree=f"{folder}/{{{views[0]},{WHOLE[0]}}}/{example}",
        example=example.rpartition("/")[2],
        origin=origin,
        published=dict.fromkeys(("query", "gallery"), (images, identities)),
    )
