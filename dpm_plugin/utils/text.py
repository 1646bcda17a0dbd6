"""Words for messages: the nearest known name, and any text as one printable line."""

import difflib
import os


def nearest(name, known):
    """The known name most like ``name``: by spelling, else by its last part (``lr`` -> ``train.lr``)."""
    known, name = list(known), name[:100]  # the comparison below is slow on long texts
    last = name.rsplit(".", 1)[-1]
    same_last = [other for other in known if other.rsplit(".", 1)[-1] == last]
    found = (
        difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        or difflib.get_close_matches(name, same_last, n=1, cutoff=0)
        or difflib.get_close_matches(name, known, n=1, cutoff=0)
    )
    return found[0] if found else ""


def shown(path):
    """A path as one line of text that every terminal and encoding takes."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else str(path)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
