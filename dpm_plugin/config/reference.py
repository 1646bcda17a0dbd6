"""Every configuration key as a Markdown page: ``python -m dpm_plugin.config.reference > configs/REFERENCE.md``."""

import inspect
import re

from dpm_plugin.config.schema import SCHEMA
from dpm_plugin.config.types import KINDS, kind_of
from dpm_plugin.data.synthetic.spec import INTEGERS, SHARES, SyntheticSpec

MARK = "[DPM]"
OWN_SECTIONS = ("vit", "synthetic")  # all of their keys are this plugin's
INTRODUCTION = f"""# Configuration

Every key of a config file and of the command line (`KEY VALUE`), by section: its default, the values it takes, what
it means. Keys marked {MARK} are this plugin's; all others are torchreid's, with torchreid's defaults. Equations,
sections and tables are the paper's; "released" is what the method's released implementation does. In a yaml file a
section is a level of nesting, and a list is written `[a, b]`; on the command line in quotes, `'[a, b]'`.

Made from `dpm_plugin/config/schema.py` by `python -m dpm_plugin.config.reference > configs/REFERENCE.md`.
"""


def reference():
    """The whole page as one text."""
    sections = {}
    for name, key in SCHEMA.items():
        sections.setdefault(name.partition(".")[0], []).append(_row(name, key))
    return INTRODUCTION + "".join(
        f"\n## {title}\n\n| key | default | takes | meaning |\n| --- | --- | --- | --- |\n" + "".join(rows)
        for title, rows in sections.items()
    )


def _row(name, key):
    own = key.help.startswith(MARK) or name.partition(".")[0] in OWN_SECTIONS
    meaning = key.help.removeprefix(MARK).strip()
    takes = _takes(key)
    if name.startswith("synthetic."):
        meaning, takes = _drawn(name.removeprefix("synthetic."))
    cells = (f"`{name}`" + (f" {MARK}" if own else ""), f"`{_shown(key.default)}`", takes, meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _shown(value):
    """A default as one would write it."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value) if value != "" else "''"


def _takes(key):
    kind, _ = KINDS[kind_of(key)]
    if key.choices is not None:
        words = ", ".join(f"`{choice}`" for choice in key.choices)
        if kind_of(key) == "strs":
            return f"a list of {words}"
        return words + (" or a list of two whole numbers" if kind_of(key) == "str or pair" else "")
    return kind + _within(key.low, key.high)


def _within(low, high):
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low is not None:
        return f", at least {low}"
    return f", at most {high}" if high is not None else ""


def _drawn(field):
    """(meaning, values) of a field of the drawn benchmark, from where it is explained and checked."""
    # An entry of the docstring: one or more names, a colon, and text up to the next entry.
    entries = re.findall(r"^    (\w[\w, ]*): (.+(?:\n {8}.+)*)", inspect.getdoc(SyntheticSpec), re.MULTILINE)
    meaning = next(" ".join(text.split()) for names, text in entries if field in names.split(", "))
    meaning = re.sub(r" Default [^.]*(\.\d[^.]*)*\.$", "", meaning).removesuffix(".")
    low, high = next((low, high) for name, low, high in INTEGERS + SHARES if name == field)
    return meaning, ("a whole number" if (field, low, high) in INTEGERS else "a number") + _within(low, high)


if __name__ == "__main__":
    print(reference(), end="")
