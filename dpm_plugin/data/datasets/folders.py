"""The folders of published data sets: found however a toolbox spelled their names, never created or downloaded.

Toolboxes disagree on case, ``-``/``_`` and on 'MTMC' and 'reID' in folder names.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpm_plugin.utils.errors import DPMError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Part:
    """One folder of a split: ``path`` lists, per level, its accepted spellings (the usual one first)."""

    path: tuple[tuple[str, ...], ...]
    view: int = 0


@dataclass(frozen=True)
class FolderStructure:
    """A published data set on disk; ``tree``, ``example`` and ``origin`` are shown in errors."""

    name: str  # in torchreid, such as "occluded_duke"
    folders: tuple[str, ...]  # accepted spellings of its folder under the root, the usual one first
    splits: Mapping[str, Sequence[Part]]  # split name -> the folders it is read from
    tree: str  # the expected folders in one line
    example: str  # a file name as published
    origin: str  # where the data comes from
    published: Mapping[str, tuple[int, int]]  # split name -> (images, identities)

    def missing(self, what: str, root: str) -> DPMError:
        """The error for what is missing, with the expected folders below ``root`` and the data's origin."""
        folders = os.path.join(root, self.tree)
        return DPMError(f"{self.name}: {what}\n  expected folders: {folders}\n  the data: {self.origin}")


def plain(name: str) -> str:
    """A folder name without case and separators: ``Occluded-DukeMTMC`` -> ``occludeddukemtmc``."""
    return "".join(c for c in name.lower() if c.isalnum())


def subfolders(folder: str) -> list[str]:
    """Names of the folders directly below ``folder``, sorted; DPMError where it cannot be listed."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise DPMError(f"folder '{folder}' cannot be listed ({error.strerror or error})") from error


def find_folder(parent: str, spellings: Sequence[str]) -> str | None:
    """Path of the folder below ``parent`` that has one of ``spellings``, ignoring case and separators.

    The usual spelling (the first) wins where several match; DPMError where several others do.
    """
    names = subfolders(parent)
    accepted = {plain(spelling) for spelling in spellings}
    found = spellings[:1] if spellings[0] in names else [name for name in names if plain(name) in accepted]
    if len(found) > 1:
        same = f"'{parent}' holds {' and '.join(found)}, which mean the same data"
        raise DPMError(f"{same}; name the wanted one '{spellings[0]}' or move the other away")
    return os.path.join(parent, found[0]) if found else None


def locate(structure: FolderStructure, root: str | Path) -> tuple[str, dict[str, list[tuple[str, int]]]]:
    """The data set's folder below ``root``, and {split: [(folder, view), ...]}.

    Raises:
        DPMError: something is missing; says what, the expected folders and where the data comes from.
    """
    root = os.path.abspath(os.path.expanduser(root))
    if not os.path.isdir(root):
        raise structure.missing(f"the data root '{root}' does not exist (data.root)", root)
    top = find_folder(root, structure.folders)
    if top is None:
        hint = ""
        if all(find_folder(root, part.path[0]) for parts in structure.splits.values() for part in parts):
            hint = "; it looks like the data set itself: give the folder above it as data.root"
        raise structure.missing(f"no folder '{structure.folders[0]}' in '{root}'{hint}", root)

    def descend(folder, path):
        for spellings in path:
            found = find_folder(folder, spellings)
            if found is None:
                there = ", ".join(subfolders(folder)) or "no folder at all"
                raise structure.missing(f"no folder '{spellings[0]}' in '{folder}' (found there: {there})", root)
            folder = found
        return folder

    places = lambda parts: [(descend(top, part.path), part.view) for part in parts]
    return top, {split: places(parts) for split, parts in structure.splits.items()}


def list_images(folder: str, example: str, split: str) -> list[str]:
    """Paths of the images in ``folder`` and in the folders directly below it, sorted.

    Raises:
        DPMError: there is none, or an image is a link that leads nowhere.
    """
    found = [entry for level in levels(folder) for entry in os.scandir(level) if is_image_name(entry.name)]
    entries = [entry for entry in found if not entry.is_dir()]
    for entry in entries:
        if not entry.is_file():
            raise DPMError(f"image '{entry.path}' is a link that leads nowhere; restore or remove it")
    if not entries:
        raise DPMError(f"{split} folder '{folder}' has no images; expected names like {example}")
    return sorted(entry.path for entry in entries)


def levels(folder: str) -> list[str]:
    """The folder itself and those directly below it, where images are looked for."""
    return [folder, *(os.path.join(folder, name) for name in subfolders(folder) if name[0] != ".")]


def is_image_name(name: str) -> bool:
    """Whether a file of that name counts as an image: by its suffix, and not hidden."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def parse_name(pattern: re.Pattern, path: str, structure: FolderStructure) -> re.Match:
    """Match the file name of ``path`` against ``pattern``; a DPMError, with an example, where it does not."""
    match = pattern.match(os.path.basename(path))
    if match is None:
        like = f"expected names like {structure.example}: rename it or move it away"
        raise DPMError(f"{structure.name}: file name of '{path}' is not understood; {like}")
    return match
