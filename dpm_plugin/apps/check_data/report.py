"""What was found in data sets, as text and as JSON."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence

from dpm_plugin.apps.check_data.checking import Checked
from dpm_plugin.apps.check_data.listing import Finding
from dpm_plugin.utils.text import shown

MOST = 10  # findings of one kind in the summary; the JSON has all
#: Kind of a finding -> what its heading says.
KINDS = {
    "unreadable": "cannot be read",
    "empty": "files of zero bytes",
    "duplicate": "groups of images with the same bytes",
    "same_name": "file names in two splits",
    "same_people": "people of training that are in the test",
    "odd_name": "odd file names",
    "layout": "not in the expected layout",
    "one_camera": "identities seen by one camera only",
    "unmatched_query": "queries without a match in the gallery",
    "counts": "counts that differ from the published ones",
    "people": "things to know about how your own people are read",
    "one_image": "groups of people with one image only",
    "table": "mistakes in the table or the splits",
    "other_files": "folders with other files",
    "shared": "images that are both query and gallery image",
}


def summary(checked: Checked) -> Iterator[str]:
    """Lines of text on one Checked."""
    yield f"{checked.name} in '{shown(checked.folder)}'"
    yield f"  {'split':<10}{'images':>10}{'identities':>12}{'cameras':>9}   published"
    for split, (images, identities, cameras) in checked.splits.items():
        published = "{:,} of {:,}".format(*checked.published[split]) if split in checked.published else "-"
        yield f"  {split:<10}{images:>10,}{identities or '-':>12}{cameras or '-':>9}   {published}"
    kinds: dict[tuple[bool, str], list[Finding]] = defaultdict(list)
    for finding in sorted(checked.findings, key=lambda finding: not finding.is_problem):
        kinds[finding.is_problem, finding.kind].append(finding)
    for (is_problem, kind), found in kinds.items():
        yield f"  {'' if is_problem else 'note: '}{len(found):,} {KINDS[kind]}"
        yield from (f"     {_line(finding, checked.folder)}" for finding in found[:MOST])
        if len(found) > MOST:
            yield f"     ... and {len(found) - MOST:,} more"
    count = len(checked.problems)
    yield f"  {count:,} problem{'' if count == 1 else 's'}" if count else "  clean"


def _line(finding: Finding, folder: str) -> str:
    files = ", ".join(shown(path) for path in _relative(finding, folder)[:2])
    more = ", ..." if len(finding.files) > 2 else ""
    return f"{files}{more}: {shown(finding.detail)}" if files else shown(finding.detail)


def _relative(finding: Finding, folder: str) -> list[str]:
    return [os.path.relpath(path, folder) for path in finding.files]


def as_json(checked: Sequence[Checked], seconds: float) -> str:
    """The whole report on data sets whose check took ``seconds``."""
    sets, names = [], ("images", "identities", "cameras")
    for each in checked:
        splits = {
            split: {**dict(zip(names, counts)), "published": each.published.get(split)}
            for split, counts in each.splits.items()
        }
        findings = [
            {"kind": one.kind, "problem": one.is_problem, "detail": one.detail, "files": _relative(one, each.folder)}
            for one in each.findings
        ]
        known = {"name": each.name, "folder": each.folder, "problems": len(each.problems)}
        sets.append({**known, "splits": splits, "findings": findings})
    clean = not any(each.problems for each in checked)
    return json.dumps({"clean": clean, "seconds": round(seconds, 1), "sets": sets}, indent=1) + "\n"
