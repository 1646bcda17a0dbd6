"""Check data before training: ``dpm check NAME_OR_PATH... [--root ROOT] [--json FILE]``.

Exit codes: 0 clean, 1 something was found, 2 a mistake in the command (one line on stderr), 130 interrupted.
"""

import sys
import time
from collections.abc import Sequence

from dpm_plugin.apps.check_data import Checked, check_data
from dpm_plugin.apps.check_data.report import as_json, summary
from dpm_plugin.data.own import OwnOptions
from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.files import write_file

FOUND = 1  # the exit code when something was found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = Parser(prog="dpm check", description="Read every image of data sets, and check files and labels.")
    parser.add_argument(
        "what", nargs="+", metavar="NAME_OR_PATH", help="a data set or path as in data.sources, or any folder of images"
    )
    parser.add_argument("--root", default="reid-data", help="folder that holds the data sets (default: reid-data)")
    parser.add_argument("--json", metavar="FILE", help="write the whole report as JSON")
    parser.add_argument("--jobs", type=int, help="processes that read (default: one for each core)")
    parser.add_argument("--pattern", default=OwnOptions.pattern, help="of your own people: data.own.pattern")
    parser.add_argument("--test-share", type=float, default=OwnOptions.test_share, help="likewise: data.own.test_share")
    parser.add_argument("--seed", type=int, default=OwnOptions.seed, help="likewise: data.own.seed")
    parser.add_argument("--plain", action="store_true", help="look for no people in a folder, only at its images")
    options = parser.parse_args(argv)
    checked: list[Checked] = []

    def work() -> None:
        start, own = time.monotonic(), OwnOptions(options.pattern, options.test_share, options.seed)
        for what in options.what:
            found = check_data(what, options.root, jobs=options.jobs, show=_show, own=own, plain=options.plain)
            print("\n".join(line for each in found for line in summary(each)), flush=True)
            checked.extend(found)
        if options.json:
            write_file(options.json, as_json(checked, time.monotonic() - start))

    return exit_code(work) or (FOUND if any(each.problems for each in checked) else 0)


def _show(line: str) -> None:
    print(f"   read: {line}", file=sys.stderr, flush=True)
