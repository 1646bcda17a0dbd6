"""Which images a data set has, with their labels; what stops its own reader is a finding here."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from dpm_plugin import torchreid_host
from dpm_plugin.apps.check_data.findings import Finding
from dpm_plugin.data import DATASETS
from dpm_plugin.data.datasets import torchreid_sets
from dpm_plugin.data.datasets.folders import is_image_name, levels, locate
from dpm_plugin.data.datasets.reid_dataset import ReidImageDataset
from dpm_plugin.data.manager import READER_ERRORS
from dpm_plugin.data.synthetic.generate import DISTRACTOR_IMAGES, FOLDERS
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import unknown

PLAIN = "images"  # the one split of a plain folder


class Entry(NamedTuple):
    """One image: its split, path, identity and camera; both None where nothing tells them."""

    split: str
    path: str
    pid: int | None = None
    camid: int | None = None


class Listed(NamedTuple):
    """A data set's images.

    ``published``: {split: (images, identities)} that there should be. ``findings``: of the listing itself.
    """

    name: str
    folder: str
    entries: list
    published: dict
    findings: list


def list_dataset(name, root):
    """The images of a registered data set below ``root``: a list of Listed, more than one where it has variants.

    Raises:
        DPMError: the name is unknown, or the data set or one of its folders is not there.
    """
    classes = torchreid_host.image_dataset_classes()
    if name not in classes:
        raise unknown("data set", name, classes)
    cls = classes[name]
    torchreid_sets.check_present(name, cls, root)
    if issubclass(cls, ReidImageDataset):
        return [_by_layout(name, cls, root)]
    if cls is DATASETS["synthetic_occluded"]:
        return _drawn(name, root)
    return [_by_reader(name, cls, root)]


def list_folder(folder):
    """All images in a plain folder and the folders in it, hidden ones aside.

    Raises:
        DPMError: it is no folder, or has no image.
    """
    paths, findings = _walk(folder)
    if not paths:
        raise DPMError(f"there is no image in '{folder}'; looked for endings such as .jpg, .png, .tif")
    return Listed(str(folder), str(folder), [Entry(PLAIN, path) for path in paths], {}, findings)


def _walk(folder):
    paths, other, findings = [], 0, []

    def failed(error):
        findings.append(Finding("unreadable", [error.filename], error.strerror))

    for place, folders, files in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [os.path.join(place, name) for name in sorted(files) if is_image_name(name)]
        other += sum(not name.startswith(".") and not is_image_name(name) for name in files)
    if other:
        findings.append(_others(other, folder))
    return paths, findings


def _by_layout(name, cls, root):
    """One of the plugin's data sets, file by file."""
    folder, splits = locate(cls.structure, root)
    images, findings = {}, []
    for split, folders in splits.items():
        images[split] = []
        for below, view in folders:
            paths, others = _image_files(below)
            if others:
                findings.append(_others(others, below))
            for path in paths:
                try:
                    images[split].append((path, *cls.parse(path, view)))
                except DPMError as error:
                    findings.append(Finding("odd_name", [path], str(error)))
    entries = [Entry(split, *entry) for split, found in cls.assign_cameras(images).items() for entry in found]
    return Listed(name, folder, entries, cls.structure.published, findings)


def _image_files(folder):
    paths, others = [], 0
    for level in levels(folder):
        with os.scandir(level) as found:
            for entry in found:
                if is_image_name(entry.name) and not entry.is_dir():
                    paths.append(entry.path)
                elif not entry.name.startswith(".") and not entry.is_dir():
                    others += 1
    return sorted(paths), others


def _others(count, folder):
    return Finding(
        "other_files", [str(folder)], f"{count} files are no images by their names; they are not used", is_problem=False
    )


def _by_reader(name, cls, root):
    """A data set that only its class knows how to read: torchreid's own, or a user's."""
    try:
        dataset = torchreid_host.init_image_dataset(name, root=root, mode="query", verbose=False)
    except READER_ERRORS as error:
        folder = str(getattr(cls, "dataset_dir", ""))
        if not torchreid_host.is_torchreid_own(cls) or not os.path.isdir(os.path.join(root, folder)):
            raise
        folder = torchreid_sets.directory(cls, root)
        reason = str(torchreid_sets.read_error(name, cls, root, error)).splitlines()[0]
        paths, findings = _walk(folder)
        findings.append(Finding("layout", [folder], f"{reason}; labels are not checked"))
        return Listed(name, folder, [Entry(PLAIN, path) for path in paths], {}, findings)
    entries = [
        Entry(split, path, pid, camid)
        for split in ("train", "query", "gallery")
        for path, pid, camid, _ in getattr(dataset, split)
    ]
    folder = str(getattr(dataset, "dataset_dir", root))
    return Listed(name, folder, entries, torchreid_sets.PUBLISHED.get(name, {}), [])


def _drawn(name, root):
    """Every benchmark that was drawn below ``root``; drawing one is not this tool's work."""
    parent = Path(root).expanduser().absolute() / name
    folders = sorted(path.parent for path in parent.glob("[!.]*/spec.json"))
    if not folders:
        raise DPMError(f"{name}: nothing is drawn in '{parent}' yet; training or testing with it draws it")
    return [_one_drawn(f"{name}/{folder.name}", folder) for folder in folders]


def _one_drawn(name, folder):
    images, findings, cls = {}, [], DATASETS["occluded_duke"]  # whose file names the drawn ones have
    for split, below in FOLDERS.items():
        images[split] = []
        paths, others = _image_files(folder / below) if (folder / below).is_dir() else ([], 0)
        if others:
            findings.append(_others(others, folder / below))
        for path in paths:
            try:
                images[split].append((path, *cls.parse(path, 0)))
            except DPMError as error:
                findings.append(Finding("odd_name", [path], str(error).replace(cls.structure.name, name)))
    entries = [Entry(split, *entry) for split, found in images.items() for entry in found]
    try:
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        tested, distractors = spec["test_ids"], spec["distractor_ids"]
        asked = {
            "train": (spec["train_ids"] * spec["train_images"], spec["train_ids"]),
            "query": (tested * spec["query_images"], tested),
            "gallery": (tested * spec["gallery_images"] + distractors * DISTRACTOR_IMAGES, tested + distractors),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        asked = {}
        findings.append(Finding("unreadable", [str(folder / "spec.json")], f"it is no spec of a drawing ({error})"))
    return Listed(name, str(folder), entries, asked, findings)
