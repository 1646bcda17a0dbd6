"""What can be wrong with a data set's files and labels."""

from collections import defaultdict
from typing import NamedTuple

from dpm_plugin.evaluation.metric import GalleryIds

#: Kind of a finding -> what its heading says.
KINDS = {
    "unreadable": "cannot be read",
    "empty": "files of zero bytes",
    "duplicate": "groups of images with the same bytes",
    "same_name": "file names in two splits",
    "odd_name": "odd file names",
    "layout": "not in the expected layout",
    "one_camera": "identities seen by one camera only",
    "unmatched_query": "queries without a match in the gallery",
    "counts": "counts that differ from the published ones",
    "other_files": "folders with other files",
    "shared": "images that are both query and gallery image",
}
TEST = ("query", "gallery")


class Finding(NamedTuple):
    """``files`` concerned, ``detail`` in words; a note that is no problem has ``is_problem`` False."""

    kind: str
    files: list
    detail: str
    is_problem: bool = True


class Checked(NamedTuple):
    """One data set or folder: its images, and what was found. ``splits``: {name: (images, identities, cameras)}."""

    name: str
    folder: str
    splits: dict
    published: dict
    findings: list

    @property
    def problems(self):
        """The findings that are none of the notes."""
        return [finding for finding in self.findings if finding.is_problem]


def find(listed, examined):
    """Everything that is wrong with the images of a ``Listed``.

    Args:
        listed: of :mod:`dpm_plugin.apps.check_data.listing`.
        examined: {path: Examined} of at least its images.

    Returns:
        Checked.
    """
    entries = listed.entries
    splits = {
        split: [each for each in entries if each.split == split]
        for split in dict.fromkeys([*listed.published, *(each.split for each in entries)])
    }
    findings = [
        *listed.findings,
        *_files(entries, examined),
        *_names(entries),
        *_duplicates(entries, examined),
        *_same_names(splits),
        *_counts(splits, listed.published),
    ]
    if splits.get("train"):
        findings += _one_camera(splits["train"])
    if "query" in splits and "gallery" in splits:
        findings += _unmatched(splits["query"], splits["gallery"])
    counted = {
        split: (len(found), *(len({each[field] for each in found} - {None}) for field in (2, 3)))
        for split, found in splits.items()
    }
    return Checked(listed.name, listed.folder, counted, listed.published, findings)


def _files(entries, examined):
    for path in dict.fromkeys(each.path for each in entries):
        found = examined[path]
        if found.problem:
            yield Finding("unreadable", [path], found.problem)
        elif found.size == 0:
            yield Finding("empty", [path], "it has no bytes")


def _names(entries):
    for path in dict.fromkeys(each.path for each in entries):
        name = path.replace("\\", "/").rpartition("/")[2]
        if not name.isprintable() or name != name.strip():
            yield Finding("odd_name", [path], "it has letters that cannot be printed, or blanks around it")


def _duplicates(entries, examined):
    """Images of the same bytes, under several names or in several splits."""
    same = defaultdict(dict)  # digest -> {path: entry}
    for entry in entries:
        if examined[entry.path].digest:
            same[examined[entry.path].digest][entry.path] = entry
    for group in same.values():
        if len(group) > 1:
            found = list(group.values())
            yield from _shared(found) or [Finding("duplicate", [each.path for each in found], _difference(found))]


def _shared(found):
    """The note on a query and its own copy in the gallery, else None.

    The evaluation never ranks it: it has the query's identity and camera. Occluded-Duke is published so.
    """
    alike = len({(each.pid, each.camid) for each in found}) == 1 and found[0].pid is not None
    if alike and sorted(each.split for each in found) == ["gallery", "query"]:
        return [Finding("shared", [each.path for each in found], "the evaluation leaves it out", is_problem=False)]
    return None


def _difference(found):
    splits = dict.fromkeys(each.split for each in found)
    # Training identities are numbered anew by some readers, so only those of the test are compared.
    pids = {each.pid for each in found if each.split in TEST}
    return ("in " + " and ".join(splits) if len(splits) > 1 else "twice in " + found[0].split) + (
        ", with different identities" if len(pids) > 1 else ""
    )


def _same_names(splits):
    """One file name in two splits; of a query and its own copy a duplicate of bytes speaks already."""
    places = defaultdict(dict)  # file name -> {split: entry}
    for split, entries in splits.items():
        for entry in entries:
            places[entry.path.replace("\\", "/").rpartition("/")[2]].setdefault(split, entry)
    for name, found in places.items():
        if "train" in found and len(found) > 1:
            yield Finding("same_name", [each.path for each in found.values()], f"'{name}' is in {' and '.join(found)}")
        elif len(found) > 1 and len({each[2:] for each in found.values()}) > 1:
            yield Finding(
                "same_name",
                [each.path for each in found.values()],
                f"'{name}' is in {' and '.join(found)}, with another identity or camera",
            )


def _counts(splits, published):
    for split, (images, identities) in published.items():
        found = len(splits[split]), len({each.pid for each in splits[split]})
        if found != (images, identities):
            yield Finding(
                "counts",
                [],
                f"{split} has {found[0]:,} images of {found[1]:,} identities, published "
                f"are {images:,} of {identities:,}",
            )


def _one_camera(train):
    cameras, images = defaultdict(set), defaultdict(list)
    for entry in train:
        cameras[entry.pid].add(entry.camid)
        images[entry.pid].append(entry.path)
    if len(set().union(*cameras.values())) == 1:
        return  # a data set of one camera
    for pid, seen in cameras.items():
        if len(seen) == 1:
            yield Finding(
                "one_camera",
                images[pid][:1],
                f"training identity {pid}, {len(images[pid])} images, is seen by camera index {min(seen)} only",
            )


def _unmatched(query, gallery):
    ids = GalleryIds([each.pid for each in gallery], [each.camid for each in gallery])
    for each in query:
        other, own = ids.split(each.pid, each.camid)
        if len(other) == 0:
            why = "only under the query's own camera" if len(own) else "not at all"
            yield Finding("unmatched_query", [each.path], f"identity {each.pid} is in the gallery {why}")
