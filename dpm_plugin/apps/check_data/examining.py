"""Every file of a list read once, by several processes: its size, a digest of its bytes, whether it is an image."""

import hashlib
import os
import stat
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.images import Undecodable, decode
from dpm_plugin.utils.progress import Progress

LARGEST_FILE = 2**28  # bytes; a larger file is not read
FILES_AT_A_TIME = 32
WORTH_A_PROCESS = 200  # files; for fewer, starting processes costs more than it saves


class Examined(NamedTuple):
    """What is in one file: ``size`` in bytes, ``digest`` of them or "", ``problem`` in words or "" for an image."""

    path: str
    size: int
    digest: str
    problem: str


def examine(path):
    """Read one file as training reads it. Raises nothing: what is wrong is in the result."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            return Examined(path, 0, "", "it is no file")
        if found.st_size == 0:
            return Examined(path, 0, "", "")
        if found.st_size > LARGEST_FILE:
            return Examined(path, found.st_size, "", f"it has {found.st_size:,} bytes, no image's size")
        digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        return Examined(path, 0, "", error.strerror or str(error))
    try:
        decode(path)  # and not the bytes: of a damaged file, Pillow makes different things of the two
    except Undecodable as error:
        return Examined(path, found.st_size, digest, str(error))
    return Examined(path, found.st_size, digest, "")


def examine_all(paths, jobs, show):
    """{path: Examined} of every path, each read once.

    Args:
        paths: of the files.
        jobs: processes; 1 is this one alone.
        show: called with a line on the progress now and then.

    Raises:
        DPMError: a process ended before its time.
    """
    paths = sorted(set(paths))
    progress = Progress(len(paths), "images", show)
    found = {}

    def take(results):
        for result in results:
            found[result.path] = result
            progress.at(len(found))

    if jobs == 1 or len(paths) < WORTH_A_PROCESS:
        take(map(examine, paths))
        return found
    pool = ProcessPoolExecutor(jobs)
    try:
        take(pool.map(examine, paths, chunksize=FILES_AT_A_TIME))
    except BrokenProcessPool as error:
        raise DPMError(
            "a process that read images was ended from outside or by the decoder of a damaged file, after "
            f"{len(found):,} of {len(paths):,} images; --jobs 1 tells which"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return found
