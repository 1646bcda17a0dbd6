"""The benchmark as a torchreid data set."""

import json
import re

from dpm_plugin.torchreid_host import ImageDataset

from .generate import FOLDERS, generate
from .spec import SyntheticSpec


class SyntheticOccluded(ImageDataset):
    """Pedestrians drawn from a seed: occluded queries, holistic gallery, some training images occluded.

    Drawn below ``<root>/synthetic_occluded/`` on first use, see ``generate``.

    Args:
        root: the data root. Default: the current folder, as in torchreid.
        spec: a ``SyntheticSpec``. Default: its defaults.
        kwargs: what torchreid hands to every image data set; its base class takes what it needs
            (``transform``, ``k_tfm``, ``mode``, ``combineall``, ``verbose``) and drops the options of other
            data sets.

    Attributes:
        dataset_dir: the folder that holds the images.
        visibility: {absolute image path: {"hidden": share from 0 to 1, "occluder": kind}}.
    """

    def __init__(self, root="", spec=None, **kwargs):
        folder = generate(spec or SyntheticSpec(), root, verbose=kwargs.get("verbose", True))
        self.root, self.dataset_dir = str(root), str(folder)
        records = json.loads((folder / "visibility.json").read_text())
        self.visibility = {str(folder / name): record for name, record in records.items()}
        train = _read(folder / FOLDERS["train"])
        label = {pid: i for i, pid in enumerate(sorted({pid for _, pid, _ in train}))}
        train = [(path, label[pid], camid) for path, pid, camid in train]
        query, gallery = _read(folder / FOLDERS["query"]), _read(folder / FOLDERS["gallery"])
        super().__init__(train, query, gallery, **kwargs)


def _read(folder):
    """(path, identity number, 0-based camera) of every image, in the order of the names."""
    rows = []
    for path in sorted(folder.glob("*.jpg")):
        pid, camera = map(int, re.match(r"(\d{4})_c(\d)_f\d{7}", path.name).groups())
        rows.append((str(path), pid, camera - 1))
    return rows
