"""Test sets of two views: occluded (or partial) queries, whole-body gallery, no cameras."""

import re

from dpm_plugin.data.datasets.folders import parse_name, person_of
from dpm_plugin.data.datasets.reid_dataset import ReidImageDataset

OCCLUDED = ("occluded_body_images", "occluded_body", "occluded", "query")
PARTIAL = ("partial_body_images", "partial_body", "partial", "probe", "query")
WHOLE = ("whole_body_images", "whole_body", "whole", "gallery")

QUERY_CAMERA, GALLERY_CAMERA = 0, 1

#: 001_01.tif, 001.jpg: the number in front is the person
PERSON_NAME = re.compile(r"(?P<pid>[0-9]{1,9})(?=[_.-])")


class TwoViewDataset(ReidImageDataset):
    """Queries have camera 0 and the gallery camera 1.

    These sets know no cameras, and their protocol ranks every gallery image. With two camera ids the
    evaluation's rule (no gallery image of the query's identity and camera) discards nothing.
    """

    @classmethod
    def parse(cls, path, view):
        pid = int(parse_name(PERSON_NAME, path, cls.layout)["pid"])
        return person_of(path, pid), view
