"""Checks of torchreid's own data sets, which would create a missing directory and download by HTTP."""

import os
import re
from pathlib import Path
from typing import Any

from dpm_plugin.data.datasets.folders import plain, subfolders
from dpm_plugin.torchreid_host import is_torchreid_own
from dpm_plugin.utils.errors import DPMError

_SPLITS = "{bounding_box_train,query,bounding_box_test}"
TREES = {
    "market1501": f"market1501/Market-1501-v15.09.15/{_SPLITS}/0002_c1s1_000451_03.jpg",
    "dukemtmcreid": f"dukemtmc-reid/DukeMTMC-reID/{_SPLITS}/0001_c2_f0046182.jpg",
}
#: Data set -> split -> (images, identities) as published and as torchreid reads them: without junk images, and
#: with Market-1501's background as an identity of the gallery.
PUBLISHED = {
    "market1501": {"train": (12936, 751), "query": (3368, 750), "gallery": (15913, 751)},
    "dukemtmcreid": {"train": (16522, 702), "query": (2228, 702), "gallery": (17661, 1110)},
}


def check_present(name: str, cls: type, root: str | Path) -> None:
    """Raise DPMError where torchreid's own data set ``name`` has no folder below ``root``."""
    if not is_torchreid_own(cls) or os.path.isdir(folder := directory(cls, root)):
        return
    parent, last = os.path.split(folder)
    if os.path.isdir(parent):
        near = [found for found in subfolders(parent) if plain(found).startswith(plain(last)[:8])]
        hint = f" ('{near[0]}' there looks like it)" if near else ""
    else:
        hint = f" ('{parent}' does not exist either: data.root)"
    raise DPMError(f"{name}: no folder '{folder}'{hint}\n{_help(name, cls, root)}")


def read_error(name: str, cls: type, root: str | Path, error: Exception) -> DPMError:
    """The DPMError for what torchreid's reader of data set ``name`` stumbled over."""
    what = "a folder has no images" if isinstance(error, IndexError) else str(error) or type(error).__name__
    if isinstance(error, AttributeError):
        what = f"a file name is not understood ({error})"
    return DPMError(f"{name}: '{directory(cls, root)}' cannot be read: {what}\n{_help(name, cls, root)}")


def directory(cls: Any, root: str | Path) -> str:
    """Absolute path of the folder where torchreid looks for the data set ``cls`` below ``root``."""
    return os.path.join(os.path.abspath(os.path.expanduser(root)), cls.dataset_dir)


def _help(name, cls, root):
    tree = TREES.get(name, f"{cls.dataset_dir}/, as torchreid's documentation of its data sets shows")
    url = re.search(r"URL: `<(.+?)>`", cls.__doc__ or "")
    origin = f"see {url[1]}" if url else f"see the docstring of torchreid's {cls.__name__}"
    return f"  expected folders: {os.path.join(root, tree)}\n  the data: {origin}; nothing was downloaded"
