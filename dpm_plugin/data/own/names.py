"""Which names of data sets are paths, and where a path leads."""

import os
from pathlib import Path

from dpm_plugin import torchreid_host
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import shown

TABLE = ".csv"


def looks_like_path(name: str) -> bool:
    """Whether ``name`` can be nothing but a path: it ends in .csv, or has a separator of folders."""
    return name.lower().endswith(TABLE) or any(each in name for each in ("/", os.sep))


def is_path(name: str, root: str | Path) -> bool:
    """Whether ``name`` is a path: it looks like one, or it is a folder's and no registered data set's."""
    if name in torchreid_host.image_dataset_classes() or not name or "\0" in name:
        return False
    return looks_like_path(name) or any(map(os.path.isdir, _places(name, root)))


def locate(name: str, root: str | Path) -> str:
    """Absolute path of the folder or table ``name``: below ``root`` if it is there, else below the current folder.

    Raises:
        DPMError: it is in neither.
    """
    for path in _places(name, root):
        if os.path.exists(path):
            return path
    where = " nor ".join(f"'{shown(os.path.dirname(path) or path)}'" for path in dict.fromkeys(_places(name, root)))
    raise DPMError(f"there is no '{shown(name)}' (neither {where} has it); name your folder or table by its full path")


def _places(name: str, root: str | Path) -> list[str]:
    own = os.path.expanduser(name)
    return [os.path.abspath(os.path.join(os.path.expanduser(root), own)), os.path.abspath(own)]
