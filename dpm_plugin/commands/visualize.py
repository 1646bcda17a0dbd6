"""Draw what a run sees in its queries: ``dpm visualize RUN_FOLDER [--queries N|NAME...] [--out FOLDER]``."""

from collections.abc import Sequence

from dpm_plugin.apps.visualize import DRIVERS, visualize_run
from dpm_plugin.inference.open_run import NAMED
from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.runtime import pick_device


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 2 for an error in one line, 130 when interrupted."""
    description = "Draw what a finished run sees in its queries: one PNG a query and index.html."
    parser = Parser(prog="dpm visualize", description=description)
    parser.add_argument("run", metavar="RUN_FOLDER", help="the run's data.save_dir")
    parser.add_argument("--root", help="folder that holds the data sets (default: the run's)")
    queries = "how many, evenly spaced, or file names (default: 24)"
    parser.add_argument("--queries", nargs="+", default=["24"], metavar="N|NAME", help=queries)
    parser.add_argument("--out", help="folder to write to (default: RUN_FOLDER/visualize)")
    parser.add_argument("--topk", type=int, default=10, help="gallery images in a ranked list (default: 10)")
    parser.add_argument("--channels", type=int, default=6, help="mask channels of a query (default: 6)")
    drivers = (
        "what drives a channel: paint each patch over and see (occlusion sensitivity), or estimate all patches "
        "from one gradient (gradient x input; default: paint)"
    )
    parser.add_argument("--drivers", choices=tuple(DRIVERS), default="paint", help=drivers)
    parser.add_argument("--target", help="one of the run's test data sets (default: the first)")
    which = "the run's checkpoint (default: last)"
    parser.add_argument("--checkpoint", choices=tuple(NAMED), default="last", help=which)
    parser.add_argument("--device", help="torch device (default: cuda where there is one, else cpu)")
    options = parser.parse_args(argv)

    def draw() -> None:
        index = visualize_run(
            options.run,
            options.out,
            root=options.root,
            queries=_number_or_names(options.queries),
            topk=options.topk,
            channels=options.channels,
            dataset=options.target,
            device=pick_device(options.device),
            drivers=options.drivers,
            checkpoint=options.checkpoint,
        )
        print(f"Open {index} in a browser")

    return exit_code(draw)


def _number_or_names(words: Sequence[str]) -> int | Sequence[str]:
    # A file called 12.jpg is meant by that name; a lone 12 is a number.
    return int(words[0]) if len(words) == 1 and words[0].lstrip("-").isdecimal() else words
