"""Files that are written whole or not at all, and locks on files."""

import errno
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import shown

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".dpm.tmp"  # ending of a file that is being written, after the number of its process; nobody else's


@contextmanager
def replacing(path: str | Path, check: Callable[[Path], object] | None = None) -> Iterator[BinaryIO]:
    """A binary file that takes the name ``path`` at the end of the block, or is removed after an error.

    It is on the disk before it takes the name, and the name is before the block's end (fsync of file and folder).
    Missing folders are made. ``check`` is called with the temporary file's path before; an error keeps the old file.
    A link stays one: the file it leads to is replaced. The permissions stay, too. A device or a pipe is not replaced:
    the content is written into it at the end of the block, unchecked.
    Raises OSError, as writing does; callers say what the file was for.
    """
    target, mode = _target(path)
    if mode is not None and not stat.S_ISREG(mode):
        yield (content := io.BytesIO())
        with open(target, "wb") as device:
            device.write(content.getbuffer())
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target)
    try:
        with open(temporary, "wb") as file:
            if mode is not None:  # before the content is there for others to read
                os.chmod(temporary, stat.S_IMODE(mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_file(path: str | Path, content: str | bytes) -> None:
    """Replace the file at ``path`` by ``content``, text or bytes, as a whole; DPMError where it cannot be written."""
    try:
        with replacing(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise DPMError(f"'{shown(path)}' cannot be written: {error.strerror or error}") from error


def read_text(path: str | Path) -> str:
    """The UTF-8 text of a regular file; opening a pipe would wait for whoever writes.

    Raises OSError where it cannot be read, or is no regular file; ValueError where it is no UTF-8 text.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return Path(path).read_text(encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; OSError and ValueError as in :func:`read_text`, whatever the file holds."""
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def check_output(path: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raise DPMError where writing ``path`` would replace one of the files ``inputs``."""
    for given in inputs:
        with suppress(OSError, ValueError):
            if os.path.samefile(path, given) and os.path.isfile(path):
                raise DPMError(f"'{shown(path)}' is the input too and would be replaced; name another file to write")


def put_copy(source: str | Path, path: str | Path) -> None:
    """Give ``path`` the content of ``source``: as another name of the same file where the file system can.

    For files that are only ever replaced, as :func:`replacing` does. Raises OSError.
    """
    source, target = os.path.realpath(source), _target(path)[0]
    temporary = _beside(target)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # no links here
        with open(source, "rb") as old, replacing(target) as new:
            shutil.copyfileobj(old, new)
        return
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # renaming one name of a file to another of its names does nothing
    _sync_folder(target.parent)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what processes that were killed in :func:`replacing` left in ``folder``, and nothing else."""
    for path in Path(folder).glob(f".*{TEMPORARY}"):
        found = re.fullmatch(r"\..+\.([0-9]+)", path.name.removesuffix(TEMPORARY))
        with suppress(OSError):
            if found and stat.S_ISREG(path.lstat().st_mode) and not _is_alive(found[1]):
                path.unlink()


@contextmanager
def locked(path: str | Path, wait: bool = True) -> Iterator[BinaryIO | None]:
    """Hold the lock file ``path`` in the block; the file and missing folders are made, and the file stays.

    The kernel drops the lock when the last process that has the file open ends, however that happens; a child
    process keeps it as long as it inherits the descriptor (``pass_fds``).

    Yields:
        the open file; None where the system or the file system has no locks, and nothing is held.

    Raises:
        BlockingIOError: another process holds the lock, and ``wait`` is False.
        OSError: the file cannot be made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        held = fcntl is not None
        try:
            if held:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            held = False
        yield file if held else None


def _is_alive(pid):
    try:
        if os.name != "nt":  # there os.kill would end it; its open file cannot be removed anyway
            os.kill(int(pid), 0)
    except (OSError, ValueError, OverflowError) as error:  # else it is somebody else's, or no number at all
        return not isinstance(error, ProcessLookupError)
    return os.name != "nt"


def _target(path: str | Path) -> tuple[Path, int | None]:
    """(what writing to ``path`` replaces, the mode of what is there or None): links are followed."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:  # or a link to what is not there yet
        return Path(os.path.realpath(path)), None
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return Path(os.path.realpath(path) if stat.S_ISREG(mode) else path), mode  # a pipe of /dev/fd has no real path


def _beside(path):
    # In the same folder, as os.replace needs one file system.
    return path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")


def _sync_folder(folder):
    with suppress(OSError):  # not on Windows, nor on every network file system
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
