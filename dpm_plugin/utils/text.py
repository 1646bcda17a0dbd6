"""Words for messages: the nearest known name, and any value or path as one printable line."""

import difflib
import os
import reprlib
from collections.abc import Iterable

from dpm_plugin.utils.errors import DPMError

NEAR = 0.6  # likeness, 0 to 1, from which on a name is worth suggesting
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 2, 4, 4, 4


def short(value: object) -> str:
    """A value as one short line for a message, also of a YAML text whose aliases mean a billion items."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a number of more digits than Python writes
        return "a number of thousands of digits"


def nearest(name: str, known: Iterable[str], near: float = NEAR) -> str | None:
    """The known name spelt most like ``name``; None where none has at least the likeness ``near``."""
    found = difflib.get_close_matches(name[:100], list(known), n=1, cutoff=near)  # which is slow on long texts
    return found[0] if found else None


def first_line(error: object) -> str:
    """The first line of an error's message that is not empty; the name of its class where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def unknown(what: str, name: object, known: Iterable[str]) -> DPMError:
    """The error for a name that is not among ``known``: names the nearest, if one is near, and all of them."""
    known = list(known)
    near = nearest(str(name).lower(), known)
    advice = "known" if near is None else f"did you mean '{near}'? Known"
    return DPMError(f"unknown {what} '{name}'; {advice}: {', '.join(known)}")


def shown(path: str | os.PathLike) -> str:
    """A path as one line of text that every terminal and encoding takes."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else str(path)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
