"""The drawn benchmark as a torchreid data set."""

from pathlib import Path

from dpm_plugin.data.datasets.occluded_duke import OccludedDuke
from dpm_plugin.data.datasets.reid_dataset import relabel
from dpm_plugin.data.synthetic.generate import FOLDERS, generate, read_visibility
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.torchreid_host import ImageDataset


class SyntheticOccluded(ImageDataset):
    """Pedestrians drawn from a seed: occluded queries, holistic gallery, some training images occluded.

    Drawn by ``generate`` below ``root`` on first use. Default: below the current folder, as in torchreid, and as
    ``SyntheticSpec()`` says. ``kwargs`` is what torchreid hands to every image data set; its base class takes
    what it needs.

    Attributes:
        dataset_dir: the folder that holds the images.
        visibility: {absolute image path: {"hidden": share from 0 to 1, "occluder": kind, "person_bands": [...],
            "hidden_bands": [...]}}, see :class:`~dpm_plugin.data.synthetic.render.Drawn`; a set that was drawn by 0.1.0
            has no bands.
    """

    def __init__(self, root: str | Path = "", spec: SyntheticSpec | None = None, **kwargs) -> None:
        folder = generate(spec or SyntheticSpec(), root, verbose=kwargs.get("verbose", True))
        self.root, self.dataset_dir = str(root), str(folder)
        records = read_visibility(folder)
        self.visibility = {str(folder / name): record for name, record in records.items()}
        train, query, gallery = (
            [(path, *OccludedDuke.parse(path, 0)) for path in sorted(map(str, (folder / FOLDERS[split]).glob("*.jpg")))]
            for split in ("train", "query", "gallery")
        )
        super().__init__(relabel(train), query, gallery, **kwargs)
