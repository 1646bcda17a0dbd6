"""What every script of ``tools/`` shares: KEY VALUE pairs, errors in one line and the exit code."""

import argparse
import errno
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import short

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


def exit_code(work: Callable[[], object], interrupted: str = "interrupted") -> int:
    """Call ``work()`` and return the exit code.

    0; 2 after a DPMError or on a full disk (one line on stderr); 128 + signal when stopped: 130 by SIGINT (Ctrl-C),
    143 by SIGTERM. ``interrupted`` is what to say then, unless the KeyboardInterrupt says more.
    """
    try:
        work()
    except DPMError as error:
        lines = filter(None, map(str.strip, str(error).splitlines()))
        print(f"error: {'; '.join(lines)}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # else a disk, or a user's share of it, is full
            raise
        where = f"'{error.filename}'" if error.filename else "a file (the log, or TensorBoard's)"
        print(f"error: {where} cannot be written: {error.strerror}; checkpoints are intact", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(str(error) or interrupted, file=sys.stderr)
        return 128 + getattr(error, "signum", signal.SIGINT)
    return 0
