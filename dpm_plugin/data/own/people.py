"""The contract of your own people: labelled images of train, query and gallery, and what must hold of them."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import shown

SPLITS = ("train", "query", "gallery")
LONGEST = 200
JUNK = "-1"  # the person of images that are not used, as in Market-1501


class Row(NamedTuple):
    """One image: its path below the folder of the images, its person, its camera and its split ("" for none)."""

    path: str
    pid: str
    camid: str | None = None
    split: str = ""
    line: int = 0  # of the table; 0 where there is none

    def __str__(self) -> str:
        return f"'{brief(self.path)}'" + (f" (line {self.line})" if self.line else "")


class Problem(NamedTuple):
    """What is wrong with some images: a kind of tools/check_data.py, their paths below the folder, and words."""

    kind: str
    paths: list[str]
    text: str


@dataclass(frozen=True)
class People:
    """Your own people, read.

    Attributes:
        name: the path as it was given.
        source: absolute path of the table or folder.
        folder: absolute path of the folder that the images' paths start from.
        rows: images that are used; once :func:`~dpm_plugin.data.own.reading.read_people` is done, each with a split.
        problems: what is wrong; nothing may be trained or tested with any.
        was_split: whether the splits are not given but made.
        notes: lines on what was read otherwise than one might expect.
    """

    name: str
    source: str
    folder: str
    rows: Sequence[Row]
    problems: Sequence[Problem] = ()
    was_split: bool = False
    notes: Sequence[str] = field(default_factory=list)

    @cached_property
    def has_cameras(self) -> bool:
        """Whether every image has a camera."""
        return bool(self.rows) and all(row.camid is not None for row in self.rows)

    @cached_property
    def cameras(self) -> Mapping[str, int]:
        """Camera -> its number, in sorted order; empty without cameras."""
        return numbered({row.camid for row in self.rows if row.camid is not None}) if self.has_cameras else {}

    @cached_property
    def persons(self) -> Mapping[str, int]:
        """Person -> its number, in sorted order."""
        return numbered({row.pid for row in self.rows})

    def of(self, split: str) -> list[Row]:
        """The images of a split, sorted by path."""
        return sorted((row for row in self.rows if row.split == split), key=lambda row: row.path)

    def check(self) -> None:
        """Raise DPMError for the first problem; it says how many there are."""
        if self.problems:
            more = len(self.problems) - 1
            others = f" (and {more:,} more: tools/check_data.py lists all)" if more else ""
            raise DPMError(f"'{shown(self.name)}': {self.problems[0].text}{others}")


def brief(text: str) -> str:
    """A path or label of a table as a printable text of at most ``LONGEST`` letters."""
    return shown(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")


def numbered(names: set[str]) -> dict[str, int]:
    """Name -> number from 0, in sorted order: whole numbers by their value, then other texts."""
    return {name: number for number, name in enumerate(sorted(names, key=_order))}


def _order(name: str) -> tuple[int, int, str]:
    is_number = len(name) <= 18 and name.isascii() and name.isdecimal()
    return (0, int(name), name) if is_number else (1, 0, name)


def image_problems(folder: str, rows: Sequence[Row]) -> Iterator[Problem]:
    """What is wrong with images whatever their split: no such file, a name of no text, a path that stands twice."""
    found: dict[str, Row] = {}
    for row in rows:
        if not row.path.isprintable():
            yield Problem("odd_name", [row.path], f"the name of {row} has letters that cannot be printed; rename it")
        elif not os.path.isfile(os.path.join(folder, row.path)):
            advice = "restore it, or remove it from the table" if row.line else "it leads nowhere; remove it"
            yield Problem("unreadable", [row.path], f"there is no image {row} in '{shown(folder)}'; {advice}")
        first = found.setdefault(row.path, row)
        if first is row or ({first.split, row.split} == {"query", "gallery"} and first[:3] == row[:3]):
            continue
        what = f"image {row} stands in line {first.line} already"
        yield Problem("table", [row.path], f"{what}; only a query may stand again, as gallery image of the same labels")


def split_problems(rows: Sequence[Row]) -> Iterator[Problem]:
    """What is wrong with the splits: a person in training and test, half a test, a query that has nothing to find."""
    people: dict[str, dict[str, Row]] = {split: {} for split in SPLITS}
    for row in rows:
        people[row.split].setdefault(row.pid, row)
    test = people["query"] | people["gallery"]
    if both := [pid for pid in people["train"] if pid in test]:
        train, other = people["train"][both[0]], test[both[0]]
        more = f" (as {len(both) - 1:,} others)" if len(both) > 1 else ""
        text = f"person '{brief(both[0])}' is in training, {train}, and in {other.split}, {other}{more}"
        yield Problem("same_people", [train.path, other.path], f"{text}; take the images of one side away")
    if bool(people["query"]) != bool(people["gallery"]):
        there, lacking = ("query", "gallery") if people["query"] else ("gallery", "query")
        first = next(iter(people[there].values()))
        text = f"there are {there} images, the first is {first}, but no {lacking} image; give both or none"
        yield Problem("table", [first.path], text)
        return
    gallery: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.split == "gallery":
            gallery[row.pid].append(row)
    for row in rows:
        if row.split == "query" and not any(map(_can_match(row), gallery[row.pid])):
            why = "no gallery image of another camera" if row.camid is not None else "no other image in the gallery"
            text = f"query {row} of person '{brief(row.pid)}' has {why}; add one, or take the query away"
            yield Problem("unmatched_query", [row.path], text)


def _can_match(query: Row):
    if query.camid is not None:
        return lambda row: row.camid != query.camid
    return lambda row: row.path != query.path
