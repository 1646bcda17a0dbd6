"""What every command shares: KEY VALUE pairs, errors in one line and the exit code."""

import argparse
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import short

#: What writing to a pipe without reader, or to a terminal that is gone, fails with.
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
#: What using a file fails with because of its name, or of whose it is.
NOT_TO_USE = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS)
OPTION = re.compile(r"--|-[A-Za-z]$")  # --root, -t; not -0.5


class Parser(argparse.ArgumentParser):
    """argparse with a one-line error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """``KEY VALUE ...`` as [(key, value), ...]; DPMError where an option is among them or the last has no value."""
    option = next((word for word in words if OPTION.match(word)), None)
    if option is not None:
        raise DPMError(f"option {short(option)} comes after the first KEY VALUE pair; put options before the pairs")
    if len(words) % 2:
        raise DPMError(f"keys and values on the command line come in pairs: {short(words[-1])} has no partner")
    return list(zip(words[::2], words[1::2]))


class Console:
    """A stream whose reader may go: then SIGPIPE is raised once, for whoever stops in order, and nothing more written.

    Where nobody handles that signal, the BrokenPipeError comes through.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.is_lost = stream, False

    def write(self, text: str) -> None:
        """As a file's."""
        self._unless_lost(self.stream.write, text)

    def flush(self) -> None:
        """As a file's."""
        self._unless_lost(self.stream.flush)

    def _unless_lost(self, act: Callable[..., object], *text: str) -> None:
        if self.is_lost:
            return
        try:
            act(*text)
        except OSError as error:
            if error.errno not in GONE:
                raise
            self.is_lost = True
            handler = signal.getsignal(signal.SIGPIPE) if hasattr(signal, "SIGPIPE") else None
            if not callable(handler):
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
            signal.raise_signal(signal.SIGPIPE)


def exit_code(work: Callable[[], object], interrupted: str = "interrupted") -> int:
    """Call ``work()`` and return the exit code.

    0; 2 after a DPMError, for a file that cannot be used, on a full disk (one line on stderr); 128 + signal when
    stopped: 130 by SIGINT (Ctrl-C),
    143 by SIGTERM, 129 by SIGHUP, 141 where nobody reads what is printed any more. ``interrupted`` is what to say then,
    unless the KeyboardInterrupt says more.
    """
    for name in ("stdout", "stderr"):  # closed from the start: the next file to be opened would take its number
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
    try:
        with _tensorboard_quiet():
            work()
        sys.stdout.flush()
    except DPMError as error:
        lines = filter(None, map(str.strip, str(error).splitlines()))
        return _ended(2, f"error: {'; '.join(lines)}")
    except BrokenPipeError:
        return _ended(141, "stopped: nobody reads what is printed any more")
    except OSError as error:
        if error.errno in NOT_TO_USE and error.filename:
            return _ended(2, f"error: {short(os.fsdecode(error.filename))} cannot be used: {error.strerror}")
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # else a disk, or a user's share of it, is full
            raise
        where = f"'{error.filename}'" if error.filename else "a file (the log, or TensorBoard's)"
        return _ended(2, f"error: {where} cannot be written: {error.strerror}; checkpoints are intact")
    except KeyboardInterrupt as error:
        return _ended(128 + getattr(error, "signum", signal.SIGINT), str(error) or interrupted)
    return 0


@contextmanager
def _tensorboard_quiet() -> Iterator[None]:
    """Without the traceback of TensorBoard's thread; what it met with on the disk is raised again in the main one."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (issubclass(args.exc_type, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _ended(code: int, line: str) -> int:
    """``code``, after a line on stderr, where there still is one; Python's own flush at the end must not fail."""
    for stream, text in ((sys.stderr, f"{line}\n"), (sys.stdout, "")):
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):  # ValueError: no real file
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code
