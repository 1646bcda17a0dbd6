"""Splitting people, never images, into training and test, and the images of the test into query and gallery."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from dpm_plugin.data.own.people import Problem, Row, brief
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import short

MARKET = r"^(?P<pid>-?\d+)_c(?P<camid>\d+)"  # 0002_c1s1_000451_03.jpg
GROUPS = ("pid", "camid")


@dataclass(frozen=True)
class OwnOptions:
    """How your own people are read.

    Attributes:
        pattern: regular expression with the groups pid and camid, searched in file names.
        test_share: share of the people, from 0 to 1, whose images are the test, where no split is given.
        seed: of the choice of people and of their queries.
    """

    pattern: str = MARKET
    test_share: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        self.compiled()
        if not 0 <= self.test_share <= 1:
            raise DPMError(f"data.own.test_share must be between 0 and 1, got {self.test_share}")

    @property
    def has_own_pattern(self) -> bool:
        """Whether the pattern was set: then it must read every name."""
        return self.pattern != MARKET

    def compiled(self) -> re.Pattern:
        """The pattern; DPMError where it is none."""
        try:
            pattern = re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise DPMError(f"data.own.pattern {short(self.pattern)} is no regular expression: {error}") from error
        if not pattern.groupindex.keys() & set(GROUPS):
            example = "such as ^(?P<pid>[^_]+)_(?P<camid>[^_]+)"
            raise DPMError(f"data.own.pattern {short(self.pattern)} needs the group pid, camid or both, {example}")
        return pattern


def split_people(rows: Sequence[Row], options: OwnOptions) -> tuple[list[Row], list[Problem]]:
    """(``rows`` with a split each, problems).

    Of each person of the test and each of its cameras, one image is the query; all of the person's images are the
    gallery, as no query is compared with itself. A person that only one camera saw has nothing to find, and is
    never chosen for the test. Who is chosen depends on the seed and the person's name alone, so that new people change
    little.
    """
    images: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        images[row.pid].append(row)
    problems = []
    single = [found[0] for found in images.values() if len(found) == 1]
    if single:
        more = f" (as {len(single) - 1:,} others)" if len(single) > 1 else ""
        text = f"person '{brief(single[0].pid)}' has one image, {single[0]}{more}; add another, or take it away"
        problems.append(Problem("one_image", [row.path for row in single], text))
    with_cameras = any(row.camid is not None for row in rows)
    testable = [pid for pid, found in images.items() if len(found) > 1]
    if with_cameras:
        testable = [pid for pid in testable if len({row.camid for row in images[pid]}) > 1]
    wanted = round(options.test_share * len(images))
    if 0 < options.test_share < 1:
        wanted = max(1, min(wanted, len(images) - 1))
    if wanted > len(testable) or (wanted and len(images) < 2):
        what = "images of two cameras" if with_cameras else "two images"
        text = (
            f"a test of {wanted:,} of {len(images):,} people (data.own.test_share {options.test_share:g}) needs as many"
        )
        advice = "lower it, add images, or say the splits yourself"
        problems.append(Problem("table", [], f"{text} with {what}, but there are {len(testable):,}; {advice}"))
    chosen = set(sorted(testable, key=lambda pid: _draw(options.seed, pid))[:wanted])
    result = []
    for pid, found in images.items():
        if pid not in chosen:
            result += [row._replace(split="train") for row in found]
            continue
        views: dict[str | None, Row] = {}
        for row in sorted(found, key=lambda row: _draw(options.seed, row.path)):
            views.setdefault(row.camid, row)
        result += [row._replace(split="query") for row in views.values()]
        result += [row._replace(split="gallery") for row in found]
    return result, problems


def _draw(seed: int, text: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{text}".encode("utf-8", "replace"), digest_size=8).digest()
