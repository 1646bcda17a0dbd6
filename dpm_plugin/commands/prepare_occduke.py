"""Make Occluded_Duke: ``dpm prepare-occduke DukeMTMC-reID.zip --lists FOLDER [--out ROOT]``."""

import sys
from collections.abc import Mapping, Sequence

from dpm_plugin.apps.prepare_occduke import PUBLISHED, Prepared, prepare
from dpm_plugin.utils.command import Parser, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for an error in one line, 130 when interrupted."""
    parser = Parser(
        prog="dpm prepare-occduke",
        description="Make Occluded_Duke from your DukeMTMC-reID.zip and the published lists.",
    )
    parser.add_argument("archive", metavar="DukeMTMC-reID.zip", help="your own copy of DukeMTMC-reID")
    parser.add_argument("--lists", required=True, help="folder of train.list, query.list and gallery.list")
    parser.add_argument("--out", default="reid-data", help="where Occluded_Duke is made (default: reid-data)")
    options = parser.parse_args(argv)

    def work() -> None:
        print(_described(prepare(options.archive, options.lists, options.out, _show)))

    return exit_code(work, interrupted="interrupted; what is done is kept: run again to go on")


def _show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _described(done: Prepared) -> str:
    """Counts per split, and what differs from the published data set."""
    text = f"{done.folder}: {_counted(done.counts)} images; {done.written:,} written, {done.kept:,} already there"
    if done.counts != PUBLISHED:
        text += f"\nnote: published are {_counted(PUBLISHED)} images"
    if done.others:
        text += f"\nnote: {done.others} other images lie there and count as part of the data set"
    return text


def _counted(images: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in images.items())
