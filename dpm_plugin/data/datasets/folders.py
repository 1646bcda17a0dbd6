"""Where a data set's folders and images lie, whatever toolbox spelled their names.

Toolboxes disagree on case, ``-``/``_`` and on 'MTMC' and 'reID' in folder names. Every data set of
this plugin finds its folders here, and says here what is missing. Nothing is created or downloaded.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from dpm_plugin.utils.errors import DPMError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Part:
    """One folder of a split: ``path`` lists, per level, its accepted spellings (the usual one first)."""

    path: tuple
    view: int = 0


@dataclass(frozen=True)
class Layout:
    """A published data set on disk.

    Args:
        name: the data set's name in torchreid, e.g. ``"occluded_duke"``.
        folders: accepted spellings of its folder under the root, the usual one first.
        splits: split name to the :class:`Part` folders it is read from.
        tree: the expected layout in one line, shown in errors.
        example: a file name as published, shown in errors.
        origin: where the data comes from, shown in errors.
        published: split name to published (images, identities).
    """

    name: str
    folders: tuple
    splits: dict
    tree: str
    example: str
    origin: str
    published: dict

    def missing(self, what, root):
        return DPMError(
            f"{self.name}: {what}\n  expected layout: {os.path.join(root, self.tree)}\n  the data: {self.origin}"
        )


def plain(name):
    """A folder name without case and separators: ``Occluded-DukeMTMC`` -> ``occludeddukemtmc``."""
    return "".join(c for c in name.lower() if c.isalnum())


def subfolders(folder):
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise DPMError(f"folder '{folder}' cannot be listed ({error.strerror or error})") from error


def find_folder(parent, spellings):
    """The folder below ``parent`` that has one of ``spellings``, ignoring case and separators.

    Returns:
        its path, or None. The usual spelling (the first) wins where several folders match.

    Raises:
        DPMError: several folders match and none has the usual spelling.
    """
    names = subfolders(parent)
    if spellings[0] in names:
        return os.path.join(parent, spellings[0])
    accepted = {plain(spelling) for spelling in spellings}
    found = [name for name in names if plain(name) in accepted]
    if len(found) > 1:
        raise DPMError(
            f"'{parent}' holds {' and '.join(found)}, which mean the same data; "
            f"name the wanted one '{spellings[0]}' or move the other away"
        )
    return os.path.join(parent, found[0]) if found else None


def locate(layout, root):
    """Find the data set below ``root``.

    Returns:
        (data set folder, {split: [(folder, view), ...]})

    Raises:
        DPMError: something is missing; says what, the expected layout and where the data comes from.
    """
    root = os.path.abspath(os.path.expanduser(root))
    if not os.path.isdir(root):
        raise layout.missing(f"the data root '{root}' does not exist (data.root)", root)
    top = find_folder(root, layout.folders)
    if top is None:
        raise layout.missing(f"no folder '{layout.folders[0]}' in '{root}'{_hint(layout, root)}", root)
    splits = {
        split: [(_descend(layout, root, top, part), part.view) for part in parts]
        for split, parts in layout.splits.items()
    }
    return top, splits


def _hint(layout, root):
    first_levels = [part.path[0] for parts in layout.splits.values() for part in parts]
    if all(find_folder(root, spellings) for spellings in first_levels):
        return "; it looks like the data set itself: give the folder above it as data.root"
    return ""


def _descend(layout, root, top, part):
    folder = top
    for spellings in part.path:
        found = find_folder(folder, spellings)
        if found is None:
            there = ", ".join(subfolders(folder)) or "no folder at all"
            raise layout.missing(f"no folder '{spellings[0]}' in '{folder}' (found there: {there})", root)
        folder = found
    return folder


def list_images(folder, example, split):
    """Paths of the images in ``folder`` and in the folders directly below it, sorted.

    Files that are no images by their suffix (Thumbs.db, lists, ...) and hidden files are ignored.

    Raises:
        DPMError: there is none, or an image is a link that leads nowhere.
    """
    paths = sorted(path for level in levels(folder) for path in _images_of(level))
    if not paths:
        raise DPMError(f"{split} folder '{folder}' has no images; expected names like {example}")
    return paths


def levels(folder):
    """The folder itself and those directly below it, where images are looked for."""
    return [folder] + [os.path.join(folder, name) for name in subfolders(folder) if name[0] != "."]


def is_image_name(name):
    """Whether a file of that name counts as an image: by its suffix, and not hidden."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def _images_of(folder):
    for entry in os.scandir(folder):
        if not is_image_name(entry.name):
            continue
        if entry.is_file():
            yield entry.path
        elif not entry.is_dir():
            raise DPMError(f"image '{entry.path}' is a link that leads nowhere; restore or remove it")


def parse_name(pattern, path, layout):
    """Match the file name of ``path`` against the compiled ``pattern``.

    Raises:
        DPMError: it does not match; names the file and an example.
    """
    match = pattern.match(os.path.basename(path))
    if match is None:
        raise DPMError(
            f"{layout.name}: file name of '{path}' is not understood; expected names like "
            f"{layout.example}: rename it or move it away"
        )
    return match


def person_of(path, pid):
    """``pid``, checked against the folder where images lie in one folder per person.

    Raises:
        DPMError: the folder is named by another number than the file.
    """
    folder = Path(path).parent.name
    if folder.isdecimal() and folder.isascii() and folder.lstrip("0") != str(pid).lstrip("0"):
        raise DPMError(f"'{path}' is of person {pid} by its name but lies in folder '{folder}'; move it away")
    return pid
