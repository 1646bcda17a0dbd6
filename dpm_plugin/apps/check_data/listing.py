"""Which images a data set or folder has, with their labels; what stops its own reader is a finding here."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dpm_plugin import torchreid_host
from dpm_plugin.data import DATASETS
from dpm_plugin.data.datasets import torchreid_sets
from dpm_plugin.data.datasets.folders import is_image_name, levels, locate
from dpm_plugin.data.datasets.reid_dataset import ReidImageDataset
from dpm_plugin.data.manager import READER_ERRORS
from dpm_plugin.data.own import OwnOptions, read_people
from dpm_plugin.data.synthetic.generate import DISTRACTOR_IMAGES, FOLDERS
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import read_json
from dpm_plugin.utils.images import has_image_ending
from dpm_plugin.utils.text import unknown

#: Kinds of problems of your own people that the check of every data set finds by itself.
FOUND_ANYWAY = ("same_people", "unmatched_query", "unreadable")
Places = Mapping[str, Sequence[tuple[str, int]]]  # split -> (folder, view) of where its images lie
Published = Mapping[str, tuple[int, int]]  # split -> (images, identities) that there should be


class Finding(NamedTuple):
    """Something noticed about a data set."""

    kind: str  # a key of report.KINDS
    files: list[str]  # those concerned
    detail: str  # in words
    is_problem: bool = True  # else it is a mere note


class Entry(NamedTuple):
    """One image: its split, path, identity and camera; both None where nothing tells them."""

    split: str
    path: str
    pid: int | None = None
    camid: int | None = None


class Listed(NamedTuple):
    """A data set's images, how many were published, and what was found in listing them."""

    name: str
    folder: str
    entries: list[Entry]
    published: Published
    findings: list[Finding]
    train_pids: bool = False  # whether a person has the same identity in training and test
    unique_names: bool = True  # whether an image is to have a file name of its own, whatever its folder
    has_cameras: bool = True  # without, the evaluation leaves out nothing but the query itself


def list_dataset(name: str, root: str | Path) -> list[Listed]:
    """The images of a registered data set below ``root``: more than one Listed where it has variants.

    Raises:
        DPMError: the name is unknown, or the data set or one of its folders is not there.
    """
    classes = torchreid_host.image_dataset_classes()
    if name not in classes:
        raise unknown("data set", name, classes)
    cls = classes[name]
    torchreid_sets.check_present(name, cls, root)
    if issubclass(cls, ReidImageDataset):
        folder, splits = locate(cls.structure, root)
        return [_by_names(name, folder, splits, cls, cls.structure.published)]
    if cls is not DATASETS["synthetic_occluded"]:
        return [_by_reader(name, cls, root)]
    parent = Path(root).expanduser().absolute() / name
    folders = sorted(path.parent for path in parent.glob("[!.]*/spec.json"))
    if not folders:
        raise DPMError(f"{name}: nothing is drawn in '{parent}' yet; training or testing with it draws it")
    return [_drawn(f"{name}/{folder.name}", folder) for folder in folders]


def list_folder(folder: str | Path) -> Listed:
    """All images in a plain folder and the folders in it, hidden ones aside.

    Raises:
        DPMError: it is no folder, or has no image.
    """
    entries, findings = _walk(folder)
    if not entries:
        raise DPMError(f"there is no image in '{folder}'; looked for endings such as .jpg, .png, .tif")
    return Listed(str(folder), str(folder), entries, {}, findings)


def list_people(name: str, root: str | Path, options: OwnOptions | None) -> Listed:
    """Your own people in the folder or table ``name``, as training reads them.

    A folder whose images tell no people is a plain one (:func:`list_folder`), with a note on why.

    Raises:
        DPMError: it is not there, cannot be read as people, or has no image.
    """
    people = read_people(name, root, options)
    if os.path.isdir(people.source) and not people.rows:
        why = f"it tells no people to train with: {people.problems[0].text}"
        note = Finding("people", [], why, is_problem=False)
        plain = list_folder(people.source)
        return plain._replace(name=name, findings=[*plain.findings, note])
    entries = []
    for row in people.rows:
        camid = None if row.camid is None else people.cameras[row.camid]
        entries.append(Entry(row.split, os.path.join(people.folder, row.path), people.persons[row.pid], camid))
    findings = [Finding("people", [], note, is_problem=False) for note in people.notes]
    for kind, paths, text in people.problems:
        if kind not in FOUND_ANYWAY:
            findings.append(Finding(kind, [os.path.join(people.folder, path) for path in paths], text))
    found = Listed(name, people.folder, entries, {}, findings, train_pids=True)
    return found._replace(unique_names=False, has_cameras=people.has_cameras)


def _walk(folder: str | Path) -> tuple[list[Entry], list[Finding]]:
    paths: list[str] = []
    others, findings = 0, []
    failed = lambda error: findings.append(Finding("unreadable", [error.filename], error.strerror))
    for place, folders, files in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [os.path.join(place, name) for name in sorted(files) if has_image_ending(name)]
        others += sum(not name.startswith(".") and not has_image_ending(name) for name in files)
    return [Entry("images", path) for path in paths], findings + _others(others, folder)


def _others(count: int, folder: str | Path) -> list[Finding]:
    """The note on ``count`` files that are no images, none for 0."""
    detail = f"{count} files are no images by their names; they are not used"
    return [Finding("other_files", [str(folder)], detail, is_problem=False)] if count else []


def _by_names(name: str, folder: str, splits: Places, cls: type[ReidImageDataset], published: Published) -> Listed:
    """A data set whose file names tell the labels."""
    images: dict[str, list] = {}
    findings: list[Finding] = []
    for split, folders in splits.items():
        images[split] = []
        for below, view in folders:
            files = [file for level in levels(below) for file in os.scandir(level) if not file.is_dir()]
            paths = sorted(file.path for file in files if is_image_name(file.name))
            findings += _others(sum(not file.name.startswith(".") for file in files) - len(paths), below)
            for path in paths:
                try:
                    images[split].append((path, *cls.parse(path, view)))
                except DPMError as error:
                    findings.append(Finding("odd_name", [path], str(error).replace(cls.structure.name, name, 1)))
    entries = [Entry(split, *image) for split, found in cls.assign_cameras(images).items() for image in found]
    return Listed(name, folder, entries, published, findings, train_pids=True)


def _by_reader(name: str, cls: type, root: str | Path) -> Listed:
    """A data set that only its class knows how to read: torchreid's own, or a user's."""
    try:
        dataset = torchreid_host.init_image_dataset(name, root=root, mode="query", verbose=False)
    except READER_ERRORS as error:
        folder = str(getattr(cls, "dataset_dir", ""))
        if not torchreid_host.is_torchreid_own(cls) or not os.path.isdir(os.path.join(root, folder)):
            raise
        folder = torchreid_sets.directory(cls, root)
        reason = str(torchreid_sets.read_error(name, cls, root, error)).splitlines()[0]
        entries, findings = _walk(folder)
        findings.append(Finding("layout", [folder], f"{reason}; labels are not checked"))
        return Listed(name, folder, entries, {}, findings)
    splits = {split: getattr(dataset, split) for split in ("train", "query", "gallery")}
    published = torchreid_sets.PUBLISHED.get(name, {})
    if published:  # these number the identities of training anew unless asked not to; what others do is not known
        splits["train"] = dataset.process_dir(dataset.train_dir, relabel=False)
    entries = [Entry(split, *image[:3]) for split, images in splits.items() for image in images]
    folder = str(getattr(dataset, "dataset_dir", root))
    return Listed(name, folder, entries, published, [], train_pids=bool(published))


def _drawn(name: str, folder: Path) -> Listed:
    """A benchmark that was drawn into ``folder``, with what its spec asked for as published."""
    places = {split: folder / below for split, below in FOLDERS.items()}
    splits = {split: [(str(place), 0)] if place.is_dir() else [] for split, place in places.items()}
    asked, findings = {}, []
    try:
        spec = read_json(folder / "spec.json")
        tested, distractors = spec["test_ids"], spec["distractor_ids"]
        asked = {
            "train": (spec["train_ids"] * spec["train_images"], spec["train_ids"]),
            "query": (tested * spec["query_images"], tested),
            "gallery": (tested * spec["gallery_images"] + distractors * DISTRACTOR_IMAGES, tested + distractors),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        findings = [Finding("unreadable", [str(folder / "spec.json")], f"it is no spec of a drawing ({error})")]
    # Drawn images have the file names of Occluded-Duke.
    listed = _by_names(name, str(folder), splits, DATASETS["occluded_duke"], asked)
    return listed._replace(findings=listed.findings + findings)
