"""Your own people as a data set: a folder of images, or a table of them, named by its path."""

from dpm_plugin.data.own.dataset import OwnDataset, camera_key
from dpm_plugin.data.own.names import is_path, looks_like_path
from dpm_plugin.data.own.people import People
from dpm_plugin.data.own.reading import read_people
from dpm_plugin.data.own.split import OwnOptions
from dpm_plugin.data.own.table import write_splits

__all__ = [
    "OwnDataset",
    "OwnOptions",
    "People",
    "camera_key",
    "is_path",
    "looks_like_path",
    "read_people",
    "write_splits",
]
