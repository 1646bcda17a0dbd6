"""What was found, for people and for programs."""

import json
import os
from collections import defaultdict

from dpm_plugin.apps.check_data.findings import KINDS
from dpm_plugin.utils.text import shown

MOST = 10  # findings of one kind in the summary; the JSON has all


def summary(checked):
    """Lines of text on one Checked."""
    yield f"{checked.name} in '{shown(checked.folder)}'"
    yield f"  {'split':<10}{'images':>10}{'identities':>12}{'cameras':>9}   published"
    for split, (images, identities, cameras) in checked.splits.items():
        wanted = checked.published.get(split)
        wanted = f"{wanted[0]:,} of {wanted[1]:,}" if wanted else "-"
        yield f"  {split:<10}{images:>10,}{identities or '-':>12}{cameras or '-':>9}   {wanted}"
    for is_problem in (True, False):
        kinds = defaultdict(list)
        for finding in checked.findings:
            if finding.is_problem == is_problem:
                kinds[finding.kind].append(finding)
        for kind, found in kinds.items():
            yield f"  {'' if is_problem else 'note: '}{len(found):,} {KINDS[kind]}"
            yield from (f"     {_line(finding, checked.folder)}" for finding in found[:MOST])
            if len(found) > MOST:
                yield f"     ... and {len(found) - MOST:,} more"
    count = len(checked.problems)
    yield f"  {count:,} problem{'' if count == 1 else 's'}" if count else "  clean"


def _line(finding, folder):
    files = [shown(_relative(path, folder)) for path in finding.files[:2]]
    more = ", ..." if len(finding.files) > 2 else ""
    return f"{', '.join(files)}{more}: {shown(finding.detail)}" if files else shown(finding.detail)


def as_json(checked, seconds):
    """The text of the report on several Checked, which took ``seconds``."""
    return (
        json.dumps(
            {
                "clean": not any(each.problems for each in checked),
                "seconds": round(seconds, 1),
                "sets": [_set(each) for each in checked],
            },
            indent=1,
        )
        + "\n"
    )


def _set(checked):
    splits = {
        split: {
            "images": images,
            "identities": identities,
            "cameras": cameras,
            "published": list(checked.published[split]) if split in checked.published else None,
        }
        for split, (images, identities, cameras) in checked.splits.items()
    }
    findings = [
        {
            "kind": finding.kind,
            "problem": finding.is_problem,
            "detail": finding.detail,
            "files": [_relative(path, checked.folder) for path in finding.files],
        }
        for finding in checked.findings
    ]
    return {
        "name": checked.name,
        "folder": checked.folder,
        "problems": len(checked.problems),
        "splits": splits,
        "findings": findings,
    }


def _relative(path, folder):
    return os.path.relpath(path, folder)
