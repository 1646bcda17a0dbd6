"""A folder of your own people: a folder for each person, or file names that a pattern reads."""

import os
import re
import sys
from collections.abc import Callable
from typing import TypeAlias

from dpm_plugin.data.own.people import Problem, Row
from dpm_plugin.data.own.split import OwnOptions
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.images import has_image_ending
from dpm_plugin.utils.text import shown

PersonOf: TypeAlias = Callable[[str, re.Match | None], str | None]
#: Split -> names of its folder: ours, and Market-1501's.
FOLDERS = {"train": ("train", "bounding_box_train"), "query": ("query",), "gallery": ("gallery", "bounding_box_test")}


def read_folder(folder: str, options: OwnOptions) -> tuple[list[Row], list[Problem], list[str]]:
    """(images, problems, notes) of a folder, whose splits are given by its folders or not at all ("").

    Raises:
        DPMError: no image is there, or no person can be told.
    """
    inside = _folders(folder)
    given: dict[str, str] = {}
    for split, names in FOLDERS.items():
        found = [name for name in names if name in inside]
        if len(found) > 1:
            what = f"'{shown(folder)}' holds {' and '.join(found)}, which mean the same"
            raise DPMError(f"{what}; move one of them away")
        if found:
            given[split] = found[0]
    read = _Reader(folder, options)
    for split, name in given.items() if given else [("", "")]:
        read.part(name, split)
    others = [name for name in inside if given and name not in given.values()]
    if others:
        read.notes.append(f"not used, beside {', '.join(given.values())}: {', '.join(map(shown, others[:5]))}")
    return read.rows, read.problems, read.notes


class _Reader:
    """Collects the images of the parts of ``folder``, what is wrong, and what is to be said."""

    def __init__(self, folder: str, options: OwnOptions) -> None:
        self.folder, self.options, self.pattern = folder, options, options.compiled()
        self.rows: list[Row] = []
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    def part(self, name: str, split: str) -> None:
        """The images of ``split`` below the folder ``name`` ("" for the whole)."""
        top = os.path.join(self.folder, name) if name else self.folder
        prefix = f"{name}/" if name else ""
        direct = [prefix + path for path in _entries(top) if has_image_ending(path) and not _is_folder(top, path)]
        nested = {prefix + person: self._below(prefix + person) for person in _folders(top)}
        paths = [path for images in nested.values() for path in images]
        if not direct and not paths:
            advice = "it needs a folder of images for each person, or images whose names tell the person"
            raise DPMError(f"there is no image in '{shown(top)}'; {advice}")
        if "pid" in self.pattern.groupindex and (self.options.has_own_pattern or not paths):
            self._label(direct + paths, split, lambda path, match: match and match["pid"], must_match=True)
            return
        for path in direct[:1]:
            text = f"image '{shown(path)}' lies beside the folders of people; move it into its person's folder"
            self.problems.append(Problem("layout", direct, text))
        for person, images in nested.items():
            if not images:
                text = f"folder '{shown(person)}' has no image; add some, or remove it"
                self.problems.append(Problem("layout", [person], text))
        person_of = lambda path, match: path[len(prefix) :].split("/")[0]
        self._label(paths, split, person_of, must_match=self.options.has_own_pattern)

    def _label(self, paths: list[str], split: str, person_of: PersonOf, must_match: bool) -> None:
        """Rows of ``paths``; unless the pattern ``must_match`` every name, it tells cameras where it does."""
        matches = [self.pattern.search(os.path.basename(path)) for path in paths]
        odd = [path for path, match in zip(paths, matches) if match is None]
        has_cameras = "camid" in self.pattern.groupindex and (must_match or not odd)
        if odd and not must_match and len(odd) < len(paths):
            what = f"{len(odd):,} of {len(paths):,} names do not tell a camera, such as '{shown(odd[0])}'"
            self.notes.append(f"{what}: none is read")
        for path, match in zip(paths, matches):
            pid, camid = person_of(path, match), match["camid"] if match and has_cameras else None
            if pid and bool(camid) == has_cameras and (match or not must_match):
                self.rows.append(Row(path, sys.intern(pid), camid and sys.intern(camid), split))
                continue
            text = f"data.own.pattern {self.pattern.pattern} does not read the name of '{shown(path)}'"
            advice = "rename the image, take it away, or set the pattern (or give each person a folder)"
            self.problems.append(Problem("odd_name", [path], f"{text}; {advice}"))

    def _below(self, place: str) -> list[str]:
        """Paths of the images in ``place``, below the folder, and in the folders in it."""

        def failed(error: OSError) -> None:
            text = f"folder '{shown(error.filename)}' cannot be listed: {error.strerror}"
            self.problems.append(Problem("layout", [os.path.relpath(error.filename, self.folder)], text))

        found = []
        for here, folders, files in os.walk(os.path.join(self.folder, place), onerror=failed):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = os.path.relpath(here, self.folder).replace(os.sep, "/")
            found += [f"{below}/{name}" for name in sorted(files) if has_image_ending(name)]
        return found


def _folders(folder: str) -> list[str]:
    return [name for name in _entries(folder) if _is_folder(folder, name)]


def _is_folder(folder: str, name: str) -> bool:
    return os.path.isdir(os.path.join(folder, name))


def _entries(folder: str) -> list[str]:
    """Names in a folder, sorted, without hidden ones."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise DPMError(f"folder '{shown(folder)}' cannot be listed: {error.strerror}") from error
