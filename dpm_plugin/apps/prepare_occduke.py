"""Make Occluded-DukeMTMC from a user's own DukeMTMC-reID.zip and the published lists of names.

The lists (Miao et al., ICCV 2019) name the images; training names lie in the zip's
``bounding_box_train``, query and gallery names in its ``query`` and ``bounding_box_test``.
"""

import os
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from lzma import LZMAError
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile, ZipInfo

from dpm_plugin.data.datasets.folders import is_image_name
from dpm_plugin.data.datasets.occluded_duke import DUKE_NAME, OccludedDuke
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.progress import Progress

#: Split -> folder it is written to and looked for in the zip, then another one in which some of its names lie.
SPLITS = {
    "train": ("bounding_box_train",),
    "query": ("query", "bounding_box_test"),
    "gallery": ("bounding_box_test", "query"),
}
PUBLISHED = {split: images for split, (images, _) in OccludedDuke.structure.published.items()}
LARGEST_IMAGE = 64 * 2**20  # bytes
LARGEST_TOTAL = 4 * 2**30  # bytes of all images together; the published ones are far below
LARGEST_RATIO = 200  # of an image's bytes to its packed ones; JPEG hardly packs, a bomb by a thousand
#: What zipfile raises on a member that is damaged, cut short, encrypted or packed in an unknown way.
MEMBER_ERRORS = (zipfile.BadZipFile, zlib.error, LZMAError, struct.error, EOFError, RuntimeError, ValueError)


class Prepared(NamedTuple):
    """What was made."""

    folder: Path  # of the data set
    counts: dict[str, int]  # images of each split
    written: int  # files
    kept: int  # files that were there and intact
    others: int  # images that lie there and are not of the lists


def prepare(archive: str | Path, lists: str | Path, out: str | Path, show: Callable[[str], None] = print) -> Prepared:
    """Write ``out/Occluded_Duke``; files that are there and intact are kept, so it can be repeated.

    Everything is checked before the first file is written: the lists, the zip, and that it holds
    every listed name. Each file is written under a temporary name and renamed when it is complete.

    Args:
        archive: path of DukeMTMC-reID.zip.
        lists: folder of train.list, query.list and gallery.list.
        out: folder in which ``Occluded_Duke`` is made.
        show: called with each line of progress. Default: ``print``.

    Raises:
        DPMError: a list, the zip or the disk is not as needed; what is done so far is kept.
    """
    names = read_lists(lists)
    try:
        opened = ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise DPMError(f"'{archive}' is no complete zip file ({error}); fetch it again") from error
    except OSError as error:
        said = error.strerror or error
        raise DPMError(f"cannot read '{archive}' ({said}); give your own DukeMTMC-reID.zip") from error
    with opened:
        found = _find_members(opened, names, archive)
        folder = _make_folders(out)
        written, progress = 0, Progress(len(found), "images", show)
        for done, (place, info) in enumerate(found, start=1):
            target = folder / place
            try:
                if not _is_intact(target, info):
                    _write(target, opened.read(info))  # zipfile checks the checksum
                    written += 1
            except (OSError, *MEMBER_ERRORS) as error:
                if isinstance(error, OSError) and error.errno is not None:  # bz2 says OSError of damaged data
                    said = error.strerror or error
                    advice = "what is done is kept, run again to go on"
                    raise DPMError(f"cannot make '{target}' ({said}); {advice}") from error
                raise DPMError(f"'{info.filename}' in '{archive}' is damaged ({error}); fetch the zip again") from error
            progress.at(done)
    counts = {split: len(listed) for split, listed in names.items()}
    there = sum(is_image_name(path.name) for split in names for path in (folder / SPLITS[split][0]).iterdir())
    return Prepared(folder, counts, written, len(found) - written, there - len(found))


def read_lists(folder: str | Path) -> dict[str, list[str]]:
    """{split: file names in its published list, in the list's order}.

    Queries may be in the gallery, 1,870 published ones are.

    Raises:
        DPMError: a list is missing or empty, repeats a name, a line is no Duke file name (a path with ``/`` or ``..``
            is refused here), or training and test share names.
    """
    names = {split: _read_list(Path(folder, f"{split}.list")) for split in SPLITS}
    shared = set(names["train"]) & {*names["query"], *names["gallery"]}
    if shared:
        raise DPMError(
            f"the lists in '{folder}' have {len(shared)} names both in training and in test, "
            f"e.g. {min(shared)}; get the published ones"
        )
    return names


def _read_list(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DPMError(
            f"list '{path}' cannot be read ({getattr(error, 'strerror', None) or error}); "
            "--lists is the folder of train.list, query.list and gallery.list"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    for name in names:
        if not (DUKE_NAME.match(name) and re.fullmatch(r"\w+\.jpg", name)):
            raise DPMError(f"list '{path}': line '{name}' is no name like 0001_c2_f0046182.jpg")
    if not names:
        raise DPMError(f"list '{path}' is empty; get the published one")
    (name, times), *_ = Counter(names).most_common(1)
    if times > 1:
        raise DPMError(f"list '{path}' names {name} twice; get the published one")
    return names


def _find_members(opened: ZipFile, names: Mapping[str, list[str]], archive: str | Path) -> list[tuple[str, ZipInfo]]:
    """[("folder/file name" to write, member), ...] for every listed name, in the zip's own order.

    Refuses a zip without all of them, with a size or packing that no image has, or too large in all.
    """
    members = _index(opened, archive)
    found, missing = [], []
    for split, listed in names.items():
        sources = SPLITS[split]
        for name in listed:
            info = next(filter(None, (members.get((source, name)) for source in sources)), None)
            if info is None:
                missing.append(f"{'|'.join(sources)}/{name}")
            elif not 0 < info.file_size <= min(LARGEST_IMAGE, LARGEST_RATIO * info.compress_size):
                raise DPMError(
                    f"'{info.filename}' in '{archive}' has {info.file_size:,} bytes, packed in "
                    f"{info.compress_size:,}, which no image has; fetch the zip again"
                )
            else:
                found.append((f"{sources[0]}/{name}", info))
    if missing:
        raise DPMError(
            f"{len(missing)} of {len(missing) + len(found)} listed images are not in '{archive}', e.g. "
            f"{', '.join(missing[:3])}; give the complete DukeMTMC-reID.zip"
        )
    total = sum(info.file_size for _, info in found)
    if total > LARGEST_TOTAL:
        raise DPMError(
            f"the listed images in '{archive}' have {total:,} bytes together, more than {LARGEST_TOTAL:,}; no Duke zip"
        )
    return sorted(found, key=lambda item: item[1].header_offset)


def _index(opened: ZipFile, archive: str | Path) -> dict[tuple[str, str], ZipInfo]:
    """{(folder, file name): member} of the zip's files; refuses what no zip of images holds."""
    members: dict[tuple[str, str], ZipInfo] = {}
    for info in opened.infolist():
        parts = re.split(r"[\\/]", info.filename)
        if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            raise DPMError(f"'{archive}' holds '{info.filename}', which leads elsewhere; no Duke zip")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind == stat.S_IFLNK:
            raise DPMError(f"'{archive}' holds the link '{info.filename}'; no DukeMTMC-reID.zip")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DPMError(f"'{archive}' holds '{info.filename}', which is neither file nor folder; no Duke zip")
        if info.is_dir() or len(parts) < 2 or parts[0] == "__MACOSX":
            continue
        known = members.setdefault((parts[-2], parts[-1]), info)
        if (known.CRC, known.file_size) != (info.CRC, info.file_size):
            raise DPMError(f"'{archive}' holds two different '{parts[-2]}/{parts[-1]}'; fetch it again")
    return members


def _make_folders(out: str | Path) -> Path:
    """Make the data set's folders below ``out``; refuses links, which lead out of the target."""
    folder = Path(out).expanduser() / OccludedDuke.structure.folders[0]
    for made in (folder, *(folder / places[0] for places in SPLITS.values())):
        if made.is_symlink():
            raise DPMError(f"'{made}' is a link; remove it, or give the folder it leads to as --out")
        try:
            made.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DPMError(f"cannot make the folder '{made}' ({error.strerror or error})") from error
    return folder


def _is_intact(target: Path, info: ZipInfo) -> bool:
    """True where ``target`` is a regular file with the member's size and checksum."""
    if target.is_symlink() or not target.is_file() or target.stat().st_size != info.file_size:
        return False
    return zlib.crc32(target.read_bytes()) == info.CRC


def _write(target: Path, content: bytes) -> None:
    """Write under a temporary name, which the next run uses again and data sets ignore, then rename.

    Without waiting for the disk, as ``utils.files`` does: a file that a power cut spoils is written anew.
    """
    partial = target.with_name(f".{target.name}.part")
    partial.unlink(missing_ok=True)  # a link of that name must not be followed out of the target
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
