"""Command line of ``tools/compare.py``."""

import shlex
import sys
from pathlib import Path

from dpm_plugin.config import SCHEMA
from dpm_plugin.utils.command import Parser, exit_code
from experiments.compare.comparing import Budget, compare
from experiments.compare.table import markdown, write_tables

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "dpm_synthetic.yaml"
SECTIONS = tuple({name.split(".")[0] + "." for name in SCHEMA})
FIXED = ("model.name", "train.max_epoch", "train.seed", "data.save_dir", "data.sources", "data.targets")


def parse(argv):
    """Command line -> namespace, its KEY VALUE pairs in ``overrides``."""
    parser = Parser(
        description="Models under one budget: accuracy, parameters, FLOPs, images per second, memory.",
        usage="compare.py MODEL [MODEL ...] [options] [KEY VALUE ...]",
        epilog="KEY VALUE: settings for every run, such as train.batch_size 32; configs/REFERENCE.md",
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="of torchreid or this plugin, e.g. osnet_x1_0")
    add("--config-file", default=str(CONFIG), help="yaml for all models (default: %(default)s)")
    add("-s", "--sources", nargs="+", help="data sets to train on (default: the config's)")
    add("-t", "--targets", nargs="+", help="data sets to evaluate on (default: the config's)")
    add(
        "--budget",
        nargs=2,
        metavar=("UNIT", "N"),
        help="'epochs N' or 'minutes N' of training each (default: the config's epochs)",
    )
    add("--seeds", nargs="+", type=int, default=[1], help="one run of each model for each (default: 1)")
    add("--jobs", type=int, default=1, help="runs at a time, sharing the CPU cores (default: 1)")
    add("--root", help="folder that holds the data sets")
    add("--out", default="log/compare", help="folder for results and runs (default: %(default)s)")
    options, pairs = _split(list(argv))
    args = parser.parse_args(options)
    args.overrides = _pairs(parser, pairs)
    args.budget = None if args.budget is None else _budget(parser, *args.budget)
    if args.jobs < 1:
        parser.error(f"--jobs is at least 1, got {args.jobs}")
    args.models, args.seeds = list(dict.fromkeys(args.models)), list(dict.fromkeys(args.seeds))
    return args


def _split(argv):
    """Options, and the pairs from the first KEY on: argparse would take a KEY for one more model or seed."""
    for index, text in enumerate(argv):
        value_of_option = index > 0 and argv[index - 1] in ("--config-file", "--root", "--out")
        if text.startswith(SECTIONS) and not value_of_option:
            return argv[:index], argv[index:]
    return argv, []


def _pairs(parser, texts):
    late = [text for text in texts if text.startswith("--")]
    if late:
        parser.error(f"option {late[0]} comes after the first KEY VALUE pair; put options before the pairs")
    if len(texts) % 2:
        parser.error(f"keys and values come in pairs: '{texts[-1]}' has no partner")
    pairs = tuple(zip(texts[0::2], texts[1::2]))
    for key, _ in pairs:
        if key in FIXED:
            parser.error(f"{key} is chosen by the models and the options --budget, --seeds, --out, -s and -t")
    return pairs


def _budget(parser, unit, amount):
    try:
        budget = Budget(unit, int(amount) if unit == "epochs" else float(amount))
    except ValueError:
        budget = None
    if budget is None or unit not in ("epochs", "minutes") or not 0 < budget.amount < float("inf"):
        parser.error(f"--budget is 'epochs N' or 'minutes N' with N above 0, got '{unit} {amount}'")
    return budget


def main(argv=None):
    """Run the command line; returns 0, 2 after a mistake (one line on stderr) or 130 when interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parse(argv)

    def run():
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
        command = shlex.join(["python", "tools/compare.py", *argv])
        paths = write_tables(comparison, args.out, command)
        print(markdown(comparison, command))
        print("Written: " + ", ".join(str(path) for path in paths))

    return exit_code(run)
