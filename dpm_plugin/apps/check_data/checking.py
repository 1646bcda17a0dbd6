"""Read every file of a data set or folder, and find what is wrong with files and labels."""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from dpm_plugin.apps.check_data.listing import Entry, Finding, Listed, Published, list_dataset, list_folder, list_people
from dpm_plugin.data.own import OwnOptions, is_path
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.images import Undecodable, decode
from dpm_plugin.utils.progress import Progress

LARGEST_FILE = 2**28  # bytes; a larger file is not read
FILES_AT_A_TIME = 32
SIDES = (("train",), ("query", "gallery"))  # splits of training and test
WORTH_A_PROCESS = 200  # files; for fewer, starting processes costs more than it saves

Show = Callable[[str], None]


class Checked(NamedTuple):
    """One data set or folder: its images, and what was found."""

    name: str
    folder: str
    splits: Mapping[str, tuple[int, int, int]]  # name -> images, identities, cameras
    published: Published
    findings: list[Finding]

    @property
    def problems(self) -> list[Finding]:
        """The findings that are no mere notes."""
        return [finding for finding in self.findings if finding.is_problem]


def check_data(
    what: str | Path,
    root: str | Path = "reid-data",
    *,
    jobs: int | None = None,
    show: Show = print,
    own: OwnOptions | None = None,
    plain: bool = False,
) -> list[Checked]:
    """Check a data set, your own people, or a plain folder of images and the folders in it.

    Args:
        what: as in ``data.sources`` the name of a registered image data set, or the path of your own people; else a
            folder of images that nothing tells the people of.
        root: folder that holds the data sets. Default: "reid-data".
        jobs: processes that read. Default: one for each core.
        show: called with a line on the progress now and then. Default: ``print``.
        own: how your own people are read. Default: as training does by default.
        plain: whether a folder is one of images only, in which no people are looked for. Default: False.

    Returns:
        One Checked for each variant that is there (``synthetic_occluded`` has one for each drawing).

    Raises:
        DPMError: the name is unknown, the data is not there, or ``jobs`` is less than 1.
    """
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    if jobs < 1:
        raise DPMError(f"the number of processes must be at least 1, got {jobs}")
    if plain and os.path.isdir(what):
        listed = [list_folder(what)]
    elif is_path(str(what), root):
        listed = [list_people(str(what), root, own)]
    else:
        listed = list_dataset(str(what), root)
    examined = examine_all([entry.path for each in listed for entry in each.entries], jobs, show)
    return [find(each, examined) for each in listed]


class Examined(NamedTuple):
    """What reading a file gave."""

    path: str
    digest: str = ""  # none where its bytes were not read
    finding: Finding | None = None  # what is wrong with it, if anything


def examine(path: str) -> Examined:
    """Read one file as training reads it. Raises nothing: what is wrong is in the result."""
    digest = ""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise Undecodable("it is no file")
        if found.st_size == 0:
            return Examined(path, finding=Finding("empty", [path], "it has no bytes"))
        if found.st_size > LARGEST_FILE:
            raise Undecodable(f"it has {found.st_size:,} bytes, no image's size")
        digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
        decode(path)  # and not the bytes: of a damaged file, Pillow makes different things of the two
    except (OSError, Undecodable) as error:
        why = getattr(error, "strerror", None) or str(error)
        return Examined(path, digest, Finding("unreadable", [path], why))
    return Examined(path, digest)


def examine_all(paths: Iterable[str], jobs: int, show: Show) -> dict[str, Examined]:
    """{path: Examined}, each path read once by one of ``jobs`` processes; ``show`` as of :func:`check_data`.

    Raises:
        DPMError: a process ended before its time.
    """
    paths = sorted(set(paths))
    progress, found = Progress(len(paths), "images", show), {}
    pool = None if jobs == 1 or len(paths) < WORTH_A_PROCESS else ProcessPoolExecutor(jobs)
    results = map(examine, paths) if pool is None else pool.map(examine, paths, chunksize=FILES_AT_A_TIME)
    try:
        for result in results:
            found[result.path] = result
            progress.at(len(found))
    except BrokenProcessPool as error:
        raise DPMError(
            "a process that read images was ended from outside or by the decoder of a damaged file, after "
            f"{len(found):,} of {len(paths):,} images; --jobs 1 tells which"
        ) from error
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
    return found


def find(listed: Listed, examined: Mapping[str, Examined]) -> Checked:
    """Everything that is wrong with the images of ``listed``, whose files are in ``examined``."""
    splits: dict[str, list[Entry]] = {split: [] for split in listed.published}
    for entry in listed.entries:
        splits.setdefault(entry.split, []).append(entry)
    paths = list(dict.fromkeys(entry.path for entry in listed.entries))
    findings = [
        *listed.findings,
        *(finding for path in paths if (finding := examined[path].finding)),
        *_odd_names(paths),
        *_duplicates(listed.entries, examined, listed.has_cameras),
        *(_same_names(splits) if listed.unique_names else ()),
        *_counts(splits, listed.published),
        *(_same_people(splits) if listed.train_pids else ()),
        *_one_camera(splits.get("train", [])),
    ]
    if "query" in splits and "gallery" in splits:
        findings += _unmatched(splits["query"], splits["gallery"], listed.has_cameras)
    known = lambda labels: len(set(labels) - {None})
    counts = {
        split: (len(found), known(each.pid for each in found), known(each.camid for each in found))
        for split, found in splits.items()
    }
    return Checked(listed.name, listed.folder, counts, listed.published, findings)


def _odd_names(paths: list[str]) -> Iterator[Finding]:
    for path in paths:
        name = os.path.basename(path)
        if not name.isprintable() or name != name.strip():
            yield Finding("odd_name", [path], "it has letters that cannot be printed, or blanks around it")


def _duplicates(entries: list[Entry], examined: Mapping[str, Examined], has_cameras: bool) -> Iterator[Finding]:
    """Images of the same bytes, under several names or in several splits.

    A query's own copy in the gallery is a note: the evaluation never ranks it, as it has the query's identity and
    camera. Occluded-Duke is published so. Without cameras it does rank a copy of another name.
    """
    same: dict[str, dict[str, Entry]] = defaultdict(dict)  # digest -> {path: entry}
    for entry in entries:
        if examined[entry.path].digest:
            same[examined[entry.path].digest][entry.path] = entry
    for found in same.values():
        splits, labels = [each.split for each in found.values()], {each[2:] for each in found.values()}
        if len(found) < 2:
            continue
        if sorted(splits) == ["gallery", "query"] and len(labels) == 1 and has_cameras and labels != {(None, None)}:
            yield Finding("shared", list(found), "the evaluation leaves it out", is_problem=False)
            continue
        detail = f"in {' and '.join(dict.fromkeys(splits))}" if len(set(splits)) > 1 else f"twice in {splits[0]}"
        # Training identities are numbered anew by some readers, so only those of the test are compared.
        test_pids = {each.pid for each in found.values() if each.split in ("query", "gallery")}
        yield Finding("duplicate", list(found), detail + (", with different identities" if len(test_pids) > 1 else ""))


def _same_names(splits: Mapping[str, Sequence[Entry]]) -> Iterator[Finding]:
    """One file name in training and test, or of two people in query and gallery.

    A person's own two views may have one name, as in Partial-REID; so has a query's own copy in the gallery.
    """
    places: dict[str, dict[str, Entry]] = defaultdict(dict)  # file name -> {split: entry}
    for split, entries in splits.items():
        for entry in entries:
            places[os.path.basename(entry.path)].setdefault(split, entry)
    for name, found in places.items():
        differ = len({each.pid for each in found.values()}) > 1
        if len(found) > 1 and ("train" in found or differ):
            other = "" if "train" in found else ", with another identity"
            paths = [each.path for each in found.values()]
            yield Finding("same_name", paths, f"'{name}' is in {' and '.join(found)}{other}")


def _same_people(splits: Mapping[str, Sequence[Entry]]) -> Iterator[Finding]:
    """People of the training images in the test: one finding, with an image of the first of them from either side."""
    train, test = ({entry.pid: entry.path for name in names for entry in splits.get(name, ())} for names in SIDES)
    if both := sorted(pid for pid in train.keys() & test.keys() if pid is not None):
        more = ", ..." if len(both) > 5 else ""
        detail = f"{len(both):,} in training and in the test: {', '.join(map(str, both[:5]))}{more}"
        yield Finding("same_people", [train[both[0]], test[both[0]]], detail)


def _counts(splits: Mapping[str, Sequence[Entry]], published: Published) -> Iterator[Finding]:
    for split, (images, identities) in published.items():
        found = len(splits[split]), len({each.pid for each in splits[split]})
        if found != (images, identities):
            detail = f"{found[0]:,} images of {found[1]:,} identities, published are {images:,} of {identities:,}"
            yield Finding("counts", [], f"{split} has {detail}")


def _one_camera(train: list[Entry]) -> Iterator[Finding]:
    """Training identities seen by one camera, where the data set has several."""
    several, people = len({entry.camid for entry in train}) > 1, defaultdict(list)
    for entry in train:
        people[entry.pid].append(entry)
    for pid, found in people.items():
        if several and len({entry.camid for entry in found}) == 1:
            detail = f"{len(found)} images, is seen by camera index {found[0].camid} only"
            yield Finding("one_camera", [found[0].path], f"training identity {pid}, {detail}")


def _unmatched(query: list[Entry], gallery: list[Entry], has_cameras: bool = True) -> Iterator[Finding]:
    """Queries whose identity no other camera saw in the gallery; the evaluation leaves them out.

    Without cameras: those whose identity no other image in the gallery shows.
    """
    view = lambda entry: entry.camid if has_cameras else entry.path
    views = defaultdict(set)
    for each in gallery:
        views[each.pid].add(view(each))
    for each in query:
        if not views[each.pid] - {view(each)}:
            own = "only under the query's own camera" if has_cameras else "only as the query itself"
            why = own if views[each.pid] else "not at all"
            yield Finding("unmatched_query", [each.path], f"identity {each.pid} is in the gallery {why}")
