"""Make Occluded-DukeMTMC from a user's own DukeMTMC-reID.zip and the published lists of names.

The lists (Miao et al., ICCV 2019) name the images; training names lie in the zip's
``bounding_box_train``, query and gallery names in its ``query`` and ``bounding_box_test``.
"""

import os
import re
import stat
import sys
import zipfile
import zlib
from collections import namedtuple
from pathlib import Path

from dpm_plugin.data.datasets.folders import IMAGE_SUFFIXES
from dpm_plugin.data.datasets.occluded_duke import DUKE_NAME, OccludedDuke
from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.progress import Progress

Split = namedtuple("Split", "name list_file folder sources")

#: Where each split's names are looked for in the zip, its own folder first.
SPLITS = (
    Split("train", "train.list", "bounding_box_train", ("bounding_box_train",)),
    Split("query", "query.list", "query", ("query", "bounding_box_test")),
    Split("gallery", "gallery.list", "bounding_box_test", ("bounding_box_test", "query")),
)
TARGET = OccludedDuke.structure.folders[0]
LARGEST_IMAGE = 64 * 2**20
LARGEST_TOTAL = 4 * 2**30  # bytes of all images together; the published ones are far below
LARGEST_RATIO = 200  # of an image's bytes to its packed ones; JPEG hardly packs, a bomb by a thousand
PARTIAL = ".{}.part"

#: What zipfile raises on a member that is damaged, cut short, encrypted or packed in an unknown way.
MEMBER_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)

Report = namedtuple("Report", "folder counts written kept others")


def prepare(archive, lists, out, *, show=print):
    """Write ``out/Occluded_Duke``; files that are there and intact are kept, so it can be repeated.

    Everything is checked before the first file is written: the lists, the zip, and that it holds
    every listed name. Each file is written under a temporary name and renamed when it is complete.

    Args:
        archive: path of DukeMTMC-reID.zip.
        lists: folder of train.list, query.list and gallery.list.
        out: folder in which ``Occluded_Duke`` is made.
        show: called with each line of progress.

    Returns:
        Report: folder, counts {split: images}, numbers of files written and kept, and other files
        found in the folders (left alone).

    Raises:
        DPMError: a list, the zip or the disk is not as needed; what is done so far is kept.
    """
    names = {split.name: read_list(Path(lists) / split.list_file) for split in SPLITS}
    check_splits(names, lists)
    with open_archive(archive) as opened:
        wanted = find_members(opened, names, archive)
        folder = make_folders(out)
        written, kept = write_all(opened, wanted, folder, archive, show)
    others = sum(count_others(folder / split.folder, names[split.name]) for split in SPLITS)
    return Report(folder, {split: len(listed) for split, listed in names.items()}, written, kept, others)


def open_archive(archive):
    try:
        return zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise DPMError(f"'{archive}' is no complete zip file ({error}); fetch it again") from error
    except OSError as error:
        raise DPMError(
            f"cannot read '{archive}' ({error.strerror or error}); give your own DukeMTMC-reID.zip"
        ) from error


def read_list(path):
    """The file names in a published list, in its order.

    Raises:
        DPMError: the list is missing or empty, repeats a name, or a line is no Duke file name: a path
            (``/``, ``..``) is refused here.
    """
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
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DPMError(f"list '{path}' names {twice} twice; get the published one")
    return names


def check_splits(names, lists):
    """Refuse lists that train on test images; queries may be in the gallery, 1,870 published ones are."""
    shared = set(names["train"]) & (set(names["query"]) | set(names["gallery"]))
    if shared:
        raise DPMError(
            f"the lists in '{lists}' have {len(shared)} names both in training and in test, "
            f"e.g. {min(shared)}; get the published ones"
        )


def index_members(opened, archive):
    """{(folder, file name): ZipInfo} of the images in Duke's three folders.

    Raises:
        DPMError: an entry is a link or another special file, has an absolute path or ``..``, or one name has two
            contents.
    """
    members = {}
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


def find_members(opened, names, archive):
    """[(target folder, file name, ZipInfo), ...] for every listed name, in the zip's own order.

    Raises:
        DPMError: listed names are missing in the zip (how many, and the first), one is no image's size or packed
            as no image can be, or all together are too large.
    """
    members = index_members(opened, archive)
    found, missing = [], []
    for split in SPLITS:
        for name in names[split.name]:
            info = next((members[s, name] for s in split.sources if (s, name) in members), None)
            if info is None:
                missing.append(f"{'|'.join(split.sources)}/{name}")
            elif not 0 < info.file_size <= min(LARGEST_IMAGE, LARGEST_RATIO * info.compress_size):
                raise DPMError(
                    f"'{info.filename}' in '{archive}' has {info.file_size:,} bytes, packed in "
                    f"{info.compress_size:,}, which no image has; fetch the zip again"
                )
            else:
                found.append((split.folder, name, info))
    if missing:
        raise DPMError(
            f"{len(missing)} of {len(missing) + len(found)} listed images are not in '{archive}', e.g. "
            f"{', '.join(missing[:3])}; give the complete DukeMTMC-reID.zip"
        )
    total = sum(info.file_size for _, _, info in found)
    if total > LARGEST_TOTAL:
        raise DPMError(
            f"the listed images in '{archive}' have {total:,} bytes together, more than {LARGEST_TOTAL:,}; no Duke zip"
        )
    return sorted(found, key=lambda item: item[2].header_offset)


def make_folders(out):
    """Make ``out/Occluded_Duke`` and its folders; refuses links, which lead out of the target."""
    folder = Path(out).expanduser() / TARGET
    for made in (folder, *(folder / split.folder for split in SPLITS)):
        if made.is_symlink():
            raise DPMError(f"'{made}' is a link; remove it, or give the folder it leads to as --out")
        try:
            made.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DPMError(f"cannot make the folder '{made}' ({error.strerror or error})") from error
    return folder


def write_all(opened, wanted, folder, archive, show):
    """Write what is not there yet; returns (files written, files kept)."""
    written, progress = 0, Progress(len(wanted), "images", show)
    for done, (subfolder, name, info) in enumerate(wanted, start=1):
        target = folder / subfolder / name
        try:
            if not is_intact(target, info):
                write_file(target, read_member(opened, info, archive))
                written += 1
        except OSError as error:
            raise DPMError(
                f"cannot make '{target}' ({error.strerror or error}); what is done is kept, run again to go on"
            ) from error
        progress.at(done)
    return written, len(wanted) - written


def is_intact(target, info):
    """True where ``target`` is a regular file with the member's size and checksum."""
    if target.is_symlink() or not target.is_file() or target.stat().st_size != info.file_size:
        return False
    return zlib.crc32(target.read_bytes()) == info.CRC


def read_member(opened, info, archive):
    """The member's bytes; zipfile checks their checksum."""
    try:
        return opened.read(info)
    except MEMBER_ERRORS as error:
        raise DPMError(f"'{info.filename}' in '{archive}' is damaged ({error}); fetch the zip again") from error


def write_file(target, content):
    """Write under a temporary name, then rename: a name that is there is complete.

    The next run uses the same temporary name again, and data sets ignore it.
    """
    partial = target.with_name(PARTIAL.format(target.name))
    # A link of that name must not be followed out of the target.
    partial.unlink(missing_ok=True)
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def count_others(folder, names):
    """How many images the folder holds besides ``names``: a data set would read them too."""
    images = {path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    return len({name for name in images if not name.startswith(".")} - set(names))


def describe(report):
    """The summary: counts per split, and what differs from the published data set."""
    published = {split: images for split, (images, _) in OccludedDuke.structure.published.items()}
    done = f"{report.written:,} written, {report.kept:,} already there"
    lines = [f"{report.folder}: {counted(report.counts)} images; {done}"]
    if report.counts != published:
        lines.append(f"note: published are {counted(published)} images")
    if report.others:
        lines.append(f"note: {report.others} other images lie there and count as part of the data set")
    return lines


def counted(images):
    return ", ".join(f"{split} {count:,}" for split, count in images.items())


def main(arguments=None):
    """Command line; returns the exit code: 0, 2 for an error in one line, 130 when interrupted."""
    parser = Parser(
        prog="prepare_occduke", description="Make Occluded_Duke from your DukeMTMC-reID.zip and the published lists."
    )
    parser.add_argument("archive", metavar="DukeMTMC-reID.zip", help="your own copy of DukeMTMC-reID")
    parser.add_argument("--lists", required=True, help="folder of train.list, query.list and gallery.list")
    parser.add_argument("--out", default="reid-data", help="where Occluded_Duke is made (default: reid-data)")
    options = parser.parse_args(arguments)

    def make():
        print("\n".join(describe(prepare(options.archive, options.lists, options.out, show=show_progress))))

    return exit_code(make, interrupted="interrupted; what is done is kept: run again to go on")


def show_progress(line):
    print(line, file=sys.stderr, flush=True)
