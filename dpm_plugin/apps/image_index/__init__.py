"""Search in a folder of one's own images: ``indexing`` embeds them once, ``searching`` ranks them."""

from dpm_plugin.apps.image_index.fingerprint import describe
from dpm_plugin.apps.image_index.indexing import check_model, index_images, list_images
from dpm_plugin.apps.image_index.page import answers_page
from dpm_plugin.apps.image_index.searching import Answer, Match, search
from dpm_plugin.apps.image_index.store import FOLDER, Index, read_index

__all__ = [
    "FOLDER",
    "Answer",
    "Index",
    "Match",
    "answers_page",
    "check_model",
    "describe",
    "index_images",
    "list_images",
    "read_index",
    "search",
]
