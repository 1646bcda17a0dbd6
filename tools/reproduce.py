#!/usr/bin/env python
"""The paper's tables and figures by one command: ``python tools/reproduce.py table3 --seeds 1 2 3``.

Trains what is missing, then writes the Markdown page, CSV and PNG; see ``--help``. Exit codes: 0 done, 2 a
mistake or a failed run (one line on stderr), 130 interrupted.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

from dpm_plugin.apps.compare.sweep import cores, stop_on_signal
from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import unknown
from experiments.reproduce.make import WHAT, Maker
from experiments.reproduce.setting import make_setting
from experiments.reproduce.tables import STOCK_MODELS


def make_parser() -> Parser:
    """The options; numbers after which KEY VALUE pairs can stand are texts, see :func:`parse`."""
    parser = Parser(
        prog="reproduce.py",
        description="The paper's tables and figures, measured: trains what is missing, "
        "then writes OUT/WHAT.md, .csv and .png. Finished runs are reused, an interrupted sweep continues.",
        usage="%(prog)s WHAT [options] [KEY VALUE ...]",
    )
    add = parser.add_argument
    add("what", metavar="WHAT", help=f"{', '.join(WHAT)} or all")
    add("--dataset", help="any registered image data set (default: synthetic_occluded)")
    add("--config-file", help="settings of DPM (default: the one in configs/ for the data set)")
    add("--seeds", nargs="+", default=["1", "2", "3"], help="of every row (default: 1 2 3)")
    add("--epochs", type=int, help="of every run (default: the config's)")
    add("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    add("--threads", type=int, help="CPU threads of a run (default: cores / jobs)")
    add("--root", help="folder that holds the data sets (default: the config's)")
    add("--out", default="log/reproduce", help="folder for results and runs (default: log/reproduce)")
    budget = "table1, table2: other models train as long as DPM or as many epochs (default: time)"
    add("--budget", choices=("time", "epochs"), default="time", help=budget)
    add("--models", nargs="+", help=f"table1, table2: torchreid's models (default: {' '.join(STOCK_MODELS)})")
    add("--alphas", nargs="+", help="figure5: values of loss.dpm.alpha (default: around the config's)")
    add("--betas", nargs="+", help="figure5: values of loss.dpm.beta (default: around the config's)")
    add("--images", type=int, default=200, help="figure3, figure4: images to average (default: 200)")
    add("opts", nargs="*", metavar="KEY VALUE", help="settings for every run, e.g. train.lr 0.01")
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Command line -> namespace with numbers in ``seeds``, ``alphas``, ``betas``.

    Raises:
        DPMError: unknown WHAT, or numbers that are none.
    """
    args = make_parser().parse_intermixed_args(argv)
    # argparse takes "--seeds 1 2 train.lr 0.1" for four seeds: names and numbers hold no dotted key.
    for name, convert in (("seeds", int), ("models", str), ("alphas", float), ("betas", float)):
        texts = getattr(args, name) or []
        first_key = next((index for index, text in enumerate(texts) if _is_key(text)), len(texts))
        args.opts[:0] = texts[first_key:]
        try:
            setattr(args, name, tuple(map(convert, texts[:first_key])))
        except ValueError as error:
            raise DPMError(f"--{name} takes numbers ({error})") from error
    if args.what not in (*WHAT, "all"):
        raise unknown("table or figure", args.what, WHAT)
    if not args.seeds:
        raise DPMError("--seeds is empty; give at least one number")
    for name in ("epochs", "jobs", "threads", "images"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise DPMError(f"--{name} is {value}; give at least 1")
    return args


def _is_key(text: str) -> bool:
    section, dot, _ = text.partition(".")
    return bool(dot) and section.isidentifier()


def make_maker(args: argparse.Namespace, argv: Sequence[str]) -> Maker:
    """The :class:`~experiments.reproduce.make.Maker` of a command line and its namespace."""

    def command(what: str) -> str:  # with one name in place of "all"
        place = argv.index(args.what)
        return shlex.join(["python", "tools/reproduce.py", *argv[:place], what, *argv[place + 1 :]])

    return Maker(
        make_setting(args.dataset, args.config_file, args.opts, args.seeds, args.epochs),
        Path(args.out),
        command,
        root=args.root,
        jobs=args.jobs,
        threads=args.threads or max(1, cores() // args.jobs),
        budget=args.budget,
        models=args.models or STOCK_MODELS,
        alphas=args.alphas,
        betas=args.betas,
        images=args.images,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for a mistake or a failed run, 130 when stopped."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def work() -> None:
        args = parse(argv)
        with stop_on_signal():
            maker = make_maker(args, argv)
            for what in maker.plan(WHAT if args.what == "all" else (args.what,)):
                print(f"=> {what}: '{Path(args.out) / what}.md'", flush=True)

    return exit_code(work, interrupted="interrupted; finished runs are kept: run again to go on")


if __name__ == "__main__":
    sys.exit(main())
