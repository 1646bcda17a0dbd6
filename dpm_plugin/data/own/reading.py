"""From a path to people: the table or folder read, split where no split is given, and checked."""

import os
from dataclasses import replace
from pathlib import Path

from dpm_plugin.data.own.folders import read_folder
from dpm_plugin.data.own.names import TABLE, locate
from dpm_plugin.data.own.people import JUNK, People, image_problems, split_problems
from dpm_plugin.data.own.split import OwnOptions, split_people
from dpm_plugin.data.own.table import read_table
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import shown


def read_people(name: str, root: str | Path = "", options: OwnOptions | None = None) -> People:
    """The people of the table or folder ``name``, below ``root`` or the current folder, with all that is wrong.

    Raises:
        DPMError: it is not there, or cannot be read as people at all.
    """
    options = options or OwnOptions()
    source = locate(name, root)
    if os.path.isdir(source):
        rows, problems, notes = read_folder(source, options)
        folder = source
    elif source.lower().endswith(TABLE):
        folder, rows, problems = read_table(source)
        notes = []
    else:
        raise DPMError(f"'{shown(name)}' is neither a folder nor a table; the name of a table ends in {TABLE}")
    used = [row for row in rows if row.pid != JUNK]
    if len(used) < len(rows):
        notes.append(f"{len(rows) - len(used):,} images of person {JUNK} are not used")
    if not used and not problems:
        raise DPMError(f"'{shown(name)}' has no image of a person (of {JUNK} none is used)")
    problems += image_problems(folder, used)
    if sum(row.camid is not None for row in used) not in (0, len(used)):
        notes.append("only some of the images tell their camera: none is used")
        used = [row._replace(camid=None) for row in used]
    people = People(name, source, folder, used, problems, notes=notes)
    if not all(row.split for row in used):
        used, more = split_people(used, options)
        return replace(people, rows=used, problems=problems + more, was_split=True)
    return replace(people, problems=problems + list(split_problems(used)))
