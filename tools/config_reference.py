#!/usr/bin/env python
"""Write every configuration key as a Markdown page: ``python tools/config_reference.py [OUTPUT.md]``."""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

from dpm_plugin.config import SCHEMA
from dpm_plugin.config.types import KINDS, Key, kind_of
from dpm_plugin.data import SyntheticSpec

PAGE = Path(__file__).resolve().parents[1] / "configs" / "REFERENCE.md"
MARK = "[DPM]"
INTRODUCTION = f"""# Configuration

Every key of a config file and of the command line (`KEY VALUE`): its default, the values it takes, what it means.
Keys marked {MARK} are this plugin's; all others are torchreid's, with torchreid's defaults. Equations, sections and
tables are the paper's; "released" is what the method's released implementation does. In a yaml file a section is a
level of nesting, and a list is written `[a, b]`; on the command line in quotes, `'[a, b]'`.

Made from `dpm_plugin/config/schema.py` by `python tools/config_reference.py`.
"""
#: The keys people change first.
FIRST = """
data.root data.sources data.targets data.save_dir model.name model.load_weights vit.pretrained_file vit.stride
train.max_epoch train.batch_size train.lr train.resume loss.dpm.margin loss.dpm.beta test.evaluate
""".split()
OWN_SECTIONS = ("vit", "synthetic")  # all of their keys are this plugin's


def reference() -> str:
    """The whole page as one text."""
    sections = {"The fifteen keys people change first": FIRST}
    for name in SCHEMA:
        sections.setdefault(name.partition(".")[0], []).append(name)
    return INTRODUCTION + "".join(
        f"\n## {title}\n\n| key | default | takes | meaning |\n| --- | --- | --- | --- |\n" + "".join(map(_row, names))
        for title, names in sections.items()
    )


def _row(name):
    key, (section, _, field) = SCHEMA[name], name.partition(".")
    own = f" {MARK}" if key.help.startswith(MARK) or section in OWN_SECTIONS else ""
    if section == "synthetic":  # SyntheticSpec checks the range of a key of the drawn benchmark
        limits = SyntheticSpec.__dataclass_fields__[field].metadata
        key = dataclasses.replace(key, low=limits["low"], high=limits["high"])
    cells = (f"`{name}`{own}", f"`{_shown(key.default)}`", _takes(key), key.help.removeprefix(MARK).strip())
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _shown(value):
    """A default as one would write it."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value) if value != "" else "''"


def _takes(key: Key):
    words = ", ".join(f"`{choice}`" for choice in key.choices or ())
    if words and kind_of(key) == "strs":
        return f"a list of {words}"
    if words:
        return words + (" or a list of two integers" if kind_of(key) == "str or pair" else "")
    kind, _ = KINDS[kind_of(key)]
    if key.low is not None:
        return f"{kind}, at least {key.low}" if key.high is None else f"{kind}, {key.low} to {key.high}"
    return kind if key.high is None else f"{kind}, at most {key.high}"


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Write every configuration key as a Markdown page.")
    parser.add_argument("output", nargs="?", default=PAGE, help="file to write (default: configs/REFERENCE.md)")
    Path(parser.parse_args(argv).output).write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
