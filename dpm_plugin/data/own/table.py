"""A table of your own people: a CSV file with the columns path, pid and, if you have them, camid and split."""

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dpm_plugin.data.own.people import SPLITS, People, Problem, Row, brief
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import read_text, write_file
from dpm_plugin.utils.images import has_image_ending
from dpm_plugin.utils.text import nearest, short, shown

COLUMNS = ("path", "pid", "camid", "split")
NEEDED = COLUMNS[:2]
#: A first line that names another folder than the table's for paths to start from.
IMAGES = "# images: "


def read_table(path: str) -> tuple[str, list[Row], list[Problem]]:
    """(absolute folder that paths start from, an image for each good line, a problem for each other one).

    Raises:
        DPMError: it is no such table at all: says which line and what to do.
    """
    try:
        text = read_text(path).removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")  # what Excel begins UTF-8 with
    except OSError as error:
        raise DPMError(f"table '{shown(path)}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        advice = "save it as UTF-8 (Excel: 'CSV UTF-8')"
        raise DPMError(f"table '{shown(path)}' is no UTF-8 text; {advice}") from error
    folder, start = os.path.dirname(path), 0
    if text.startswith(IMAGES):
        first, _, text = text.partition("\n")
        folder, start = os.path.abspath(os.path.join(folder, first.removeprefix(IMAGES).strip().strip(","))), 1
        if "\0" in folder or not os.path.isdir(folder):
            what = f"table '{shown(path)}' line 1: there is no folder '{brief(folder)}'"
            raise DPMError(f"{what}; correct the line, or remove it where the table lies in the folder of its images")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines = _lines(reader, path, start)
    number, header = next(lines, (1, []))
    columns = _columns(header, f"table '{shown(path)}' line {number}")
    rows: list[Row] = []
    problems: list[Problem] = []
    for number, cells in lines:
        found = _row(number, cells, columns, folder)
        if isinstance(found, Row):
            rows.append(found)
        else:
            problems.append(Problem("table", [], f"line {number}: {found}"))
    if not rows and not problems:
        raise DPMError(f"table '{shown(path)}' has no image below its header; write a line for each image")
    _check_columns(rows, path)
    return folder, rows, problems


def _lines(reader, path: str, start: int) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells without blanks around) of each line that is not empty."""
    try:
        for cells in reader:
            if any(cells := [cell.strip() for cell in cells]):
                yield reader.line_num + start, cells
    except csv.Error as error:
        where = f"table '{shown(path)}' line {reader.line_num + start}"
        raise DPMError(f"{where}: no valid CSV ({error}); write it again with a program for tables") from error


def _columns(header: Sequence[str], where: str) -> list[str]:
    """The columns of the table; DPMError where one is unknown, missing or there twice."""
    columns = [cell.lower() for cell in header]
    other = next((mark for mark in (";", "\t", "|") if len(header) == 1 and mark in header[0]), None)
    if other:
        raise DPMError(f"{where}: columns are separated by {other!r}; save the table with commas")
    known = ", ".join(COLUMNS)
    for index, (name, given) in enumerate(zip(columns, header)):
        if not name:
            raise DPMError(f"{where}: column {index + 1} has no name (pandas: index=False); columns are {known}")
        if name not in COLUMNS:
            near = nearest(name, COLUMNS)
            advice = f"did you mean '{near}'? Columns" if near else "columns"
            raise DPMError(f"{where}: unknown column {short(given)}; {advice} are {known}")
        if name in columns[:index]:
            raise DPMError(f"{where}: column '{name}' is there twice; remove one")
    lacking = [name for name in NEEDED if name not in columns]
    if lacking:
        raise DPMError(f"{where}: no column '{lacking[0]}'; the first line names the columns: {known}")
    return columns


def _row(number: int, cells: list[str], columns: Sequence[str], folder: str) -> Row | str:
    """The image of a line, or what is wrong with it."""
    if len(cells) != len(columns):
        return f"it has {len(cells)} cells, the first line has {len(columns)}; quote a cell that holds a comma"
    values = dict(zip(columns, cells))
    empty = next((name for name in columns if not values[name]), None)
    if empty:
        rest = "" if empty in NEEDED else ", or remove the column"
        return f"'{empty}' is empty; fill it in{rest}"
    path = values["path"]
    if os.path.isabs(path):
        return f"path '{brief(path)}' is absolute; write it as seen from the folder '{shown(folder)}'"
    path = os.path.normpath(path).replace(os.sep, "/")
    if path.split("/")[0] == "..":
        return f"path '{brief(path)}' leads out of the folder '{shown(folder)}'; paths stay below it"
    split = values.get("split", "")
    if split and split not in SPLITS:
        near = nearest(split, SPLITS)
        known = f"did you mean '{near}'? Splits" if near else "splits"
        return f"unknown split {short(split)}; {known} are train, query, gallery"
    camid = values.get("camid")
    return Row(path, sys.intern(values["pid"]), camid and sys.intern(camid), sys.intern(split), number)


def _check_columns(rows: Sequence[Row], path: str) -> None:
    """Refuse a table whose persons or cameras are paths of images."""
    for name in ("pid", "camid"):
        column = [getattr(row, name) for row in rows]
        if column and all(value and has_image_ending(os.path.basename(value) or ".") for value in column):
            where = f"table '{shown(path)}' line {rows[0].line}"
            raise DPMError(f"{where}: '{name}' is {short(column[0])}, an image; are columns mixed up?")


def write_splits(everyone: Iterable[People], folder: str | Path) -> None:
    """Write ``split.csv``, ``split-2.csv``, ... into ``folder``: a table for each of the people that were split."""
    made = [people for people in everyone if people.was_split]
    for number, people in enumerate(made, start=1):
        path = Path(folder) / ("split.csv" if number == 1 else f"split-{number}.csv")
        write_table(path, people.folder, people.rows)
        print(f"=> How '{people.name}' was split is in '{path}', which can be named in its place")


def write_table(path: str | Path, folder: str, rows: Sequence[Row]) -> None:
    """Write a table that :func:`read_table` reads as ``rows``, of images in ``folder``; DPMError where it cannot be."""
    has_cameras = bool(rows) and all(row.camid is not None for row in rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "pid", "camid", "split") if has_cameras else ("path", "pid", "split"))
    for row in rows:
        writer.writerow((row.path, row.pid, *([row.camid] if has_cameras else []), row.split))
    write_file(path, f"{IMAGES}{folder}\n{text.getvalue()}")
