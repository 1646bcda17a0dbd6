"""Command line of ``tools/benchmark.py``."""

import importlib

import torch

from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.files import write_file
from dpm_plugin.utils.runtime import pick_device
from experiments.benchmark.growth import growth_png
from experiments.benchmark.report import as_json, format_comparison
from experiments.benchmark.settings import Settings

# Part -> module with ``run(settings)``, which yields Comparisons as they are measured.
PARTS = {
    "step": "experiments.benchmark.step",
    "head": "experiments.benchmark.head",
    "retrieval": "experiments.benchmark.retrieval",
    "search": "experiments.benchmark.search",
    "metric": "experiments.benchmark.metric",
    "extract": "experiments.benchmark.extract",
    "loader": "experiments.benchmark.loader",
    "ddp": "experiments.benchmark.ddp",
}


def parse(argv):
    """Command line -> namespace."""
    parser = Parser(
        description="Each part against a plain implementation of the same mathematics, in one process: "
        "contenders in turn, medians, the ratio first."
    )
    parser.add_argument("part", choices=[*PARTS, "all"], help="what to measure")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each contender (default: 5)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--device", help="where to run (default: a GPU where there is one)")
    parser.add_argument("--tiny", action="store_true", help="sizes that take seconds; the figures mean nothing")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--plot", metavar="FILE", help="draw time and memory against size as PNG (head, search, all)")
    args = parser.parse_args(argv)
    if args.rounds < 1 or (args.threads or 1) < 1:
        parser.error("--rounds and --threads are at least 1")
    return args


def main(argv=None):
    """Run the command line; returns 0, 2 after a mistake (one line on stderr) or 130 when interrupted."""
    args = parse(argv)

    def work():
        settings = Settings(pick_device(args.device), args.rounds, args.tiny)
        if args.threads:
            torch.set_num_threads(args.threads)
        comparisons = []
        for part in PARTS if args.part == "all" else [args.part]:
            for comparison in importlib.import_module(PARTS[part]).run(settings):
                print(format_comparison(comparison), flush=True)
                comparisons.append(comparison)
                if args.json:  # after each, so that an interruption loses none
                    write_file(args.json, as_json(comparisons, settings.device, torch.get_num_threads()))
        if args.plot:
            write_file(args.plot, growth_png(comparisons))

    return exit_code(work)
