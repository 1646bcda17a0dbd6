"""Command line of tools/check_data.py."""

import os
import sys
import time

from dpm_plugin import torchreid_host
from dpm_plugin.apps.check_data.checking import check_dataset, check_folder
from dpm_plugin.apps.check_data.report import as_json, summary
from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.files import write_file

FOUND = 1  # the exit code when something was found


def main(argv=None):
    """Returns the exit code: 0 clean, 1 something was found, 2 for an error in one line, 130 when interrupted."""
    parser = Parser(prog="check_data", description="Read every image of data sets, and check files and labels.")
    parser.add_argument(
        "what", nargs="+", metavar="NAME_OR_FOLDER", help="a data set as in data.sources, or any folder of images"
    )
    parser.add_argument("--root", default="reid-data", help="folder that holds the data sets (default: reid-data)")
    parser.add_argument("--json", metavar="FILE", help="write the whole report as JSON")
    parser.add_argument("--jobs", type=int, help="processes that read (default: one for each core)")
    options = parser.parse_args(argv)
    problems = []
    return exit_code(lambda: problems.append(_check(options))) or (FOUND if problems[0] else 0)


def _check(options):
    """Number of problems, after the report on them."""
    start, checked = time.monotonic(), []
    for what in options.what:
        found = _check_one(what, options)
        print("\n".join(line for each in found for line in summary(each)), flush=True)
        checked += found
    if options.json:
        write_file(options.json, as_json(checked, time.monotonic() - start))
    return sum(len(each.problems) for each in checked)


def _check_one(what, options):
    if what not in torchreid_host.image_dataset_classes() and os.path.isdir(what):
        return check_folder(what, jobs=options.jobs, show=_show)
    return check_dataset(what, options.root, jobs=options.jobs, show=_show)


def _show(line):
    print(f"   read: {line}", file=sys.stderr, flush=True)
