"""Compare models: ``dpm compare MODEL [MODEL ...] --budget minutes 2 --seeds 1 2 3``.

Any of torchreid's or this plugin's models on any data sets: accuracy, parameters, FLOPs, images per second in
training and extraction, and peak memory, in one table. Exit codes as those of ``dpm train``.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from dpm_plugin.apps.compare.comparing import Budget, compare
from dpm_plugin.apps.compare.page import write_page
from dpm_plugin.apps.compare.table import csv_table, markdown
from dpm_plugin.config import SCHEMA
from dpm_plugin.utils.command import Parser, exit_code, pairs
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.place import CONFIGS

SECTIONS = tuple({name.split(".")[0] + "." for name in SCHEMA})
FIXED = ("model.name", "train.max_epoch", "train.seed", "data.save_dir", "data.sources", "data.targets")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line -> namespace, its KEY VALUE pairs in ``overrides``."""
    parser = Parser(
        description="Models under one budget: accuracy, parameters, FLOPs, images per second, memory.",
        prog="dpm compare",
        usage="%(prog)s MODEL [MODEL ...] [options] [KEY VALUE ...]",
        epilog=f"KEY VALUE: settings for every run, such as train.batch_size 32; {CONFIGS / 'REFERENCE.md'}",
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="of torchreid or this plugin, e.g. osnet_x1_0")
    file = "yaml for all models, or a shipped one's name (default: %(default)s)"
    add("--config-file", default="dpm_synthetic", help=file)
    add("-s", "--sources", nargs="+", help="data sets to train on (default: the config's)")
    add("-t", "--targets", nargs="+", help="data sets to evaluate on (default: the config's)")
    budget = "'epochs N' or 'minutes N' of training each (default: the config's epochs)"
    add("--budget", nargs=2, metavar=("UNIT", "N"), help=budget)
    add("--seeds", nargs="+", type=int, default=[1], help="one run of each model for each (default: 1)")
    add("--jobs", type=int, default=1, help="runs at a time, sharing the CPU cores (default: 1)")
    add("--root", help="folder that holds the data sets")
    add("--out", default="log/compare", help="folder for results and runs (default: %(default)s)")
    options, texts = _split(list(argv))
    args = parser.parse_args(options)
    try:
        args.overrides = _overrides(texts)
        args.budget = None if args.budget is None else _budget(*args.budget)
    except DPMError as error:
        parser.error(str(error))
    if args.jobs < 1:
        parser.error(f"--jobs is at least 1, got {args.jobs}")
    args.models, args.seeds = list(dict.fromkeys(args.models)), list(dict.fromkeys(args.seeds))
    return args


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Options, and the pairs from the first KEY on: argparse would take a KEY for one more model or seed."""
    for index, text in enumerate(argv):
        value_of_option = index > 0 and argv[index - 1] in ("--config-file", "--root", "--out")
        if text.startswith(SECTIONS) and not value_of_option:
            return argv[:index], argv[index:]
    return argv, []


def _overrides(texts: list[str]) -> tuple[tuple[str, str], ...]:
    overrides = tuple(pairs(texts))
    for key, _ in overrides:
        if key in FIXED:
            raise DPMError(f"{key} is chosen by the models and the options --budget, --seeds, --out, -s and -t")
    return overrides


def _budget(unit: str, amount: str) -> Budget:
    try:
        budget = Budget(unit, int(amount) if unit == "epochs" else float(amount))
    except ValueError:
        budget = None
    if budget is None or unit not in ("epochs", "minutes") or not 0 < budget.amount < float("inf"):
        raise DPMError(f"--budget is 'epochs N' or 'minutes N' with N above 0, got '{unit} {amount}'")
    return budget


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 2 after a mistake (one line on stderr) or 130 when interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)

    def work() -> None:
        comparison = compare(
            args.models,
            args.config_file,
            out=args.out,
            budget=args.budget,
            targets=args.targets,
            sources=args.sources,
            seeds=args.seeds,
            jobs=args.jobs,
            root=args.root,
            overrides=args.overrides,
        )
        text = markdown(comparison, shlex.join(["dpm", "compare", *argv]))
        paths = write_page(args.out, "compare", md=text, csv=csv_table(comparison))
        print(text)
        print("Written: " + ", ".join(str(path) for path in paths))

    return exit_code(work)
