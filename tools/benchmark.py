#!/usr/bin/env python
"""Measure how fast each part is: ``python tools/benchmark.py head|...|all [--json FILE]``.

Every part is timed against a plain implementation of the same mathematics, the oracle of the tests, in one
process and in turn. Exit codes as those of tools/main.py.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.files import write_file
from dpm_plugin.utils.runtime import pick_device
from experiments.benchmark import ddp, extract, head, loader, metric, retrieval, search, step
from experiments.benchmark.growth import growth_png
from experiments.benchmark.report import as_json, format_comparison
from experiments.benchmark.settings import Settings

PARTS = {
    "step": step,
    "head": head,
    "retrieval": retrieval,
    "search": search,
    "metric": metric,
    "extract": extract,
    "loader": loader,
    "ddp": ddp,
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line -> namespace; ``argv`` None takes the process's."""
    parser = Parser(
        description="Each part against a plain implementation of the same mathematics, in one process: "
        "contenders in turn, medians, the ratio first."
    )
    add = parser.add_argument
    add("part", choices=[*PARTS, "all"], help="what to measure")
    add("--rounds", type=int, default=5, help="timed rounds of each contender (default: 5)")
    add("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    add("--device", help="where to run (default: a GPU where there is one)")
    add("--tiny", action="store_true", help="sizes that take seconds; the figures mean nothing")
    add("--json", metavar="FILE", help="write the figures there too")
    add("--plot", metavar="FILE", help="draw time and memory against size as PNG (head, search, all)")
    args = parser.parse_args(argv)
    if args.rounds < 1 or (args.threads or 1) < 1:
        parser.error("--rounds and --threads are at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 2 after a mistake (one line on stderr) or 130 when interrupted."""
    args = parse(argv)

    def work() -> None:
        settings = Settings(pick_device(args.device), args.rounds, args.tiny)
        if args.threads:
            torch.set_num_threads(args.threads)
        comparisons = []
        for part in PARTS.values() if args.part == "all" else [PARTS[args.part]]:
            for comparison in part.run(settings):
                print(format_comparison(comparison), flush=True)
                comparisons.append(comparison)
                if args.json:  # after each, so that an interruption loses none
                    write_file(args.json, as_json(comparisons, settings.device, torch.get_num_threads()))
        if args.plot:
            write_file(args.plot, growth_png(comparisons))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
