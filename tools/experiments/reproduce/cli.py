"""Command line of ``tools/reproduce.py``: one table or figure of the paper, or all of them."""

import importlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import nearest
from experiments.reproduce.make import Maker
from experiments.reproduce.sweep import stop_on_sigterm

WHAT = ("table1", "table2", "table3", "table4", "table5", "figure3", "figure4", "figure5", "occlusion")


class Tools(NamedTuple):
    """The parts that other modules give, so that they are loaded when needed and can be exchanged."""

    run_all: Callable
    stock_overrides: Callable
    schedule_overrides: Callable
    training_speed: Callable
    figure3: Callable
    figure4: Callable
    occlusion_curve: Callable

    @classmethod
    def load(cls):
        """The real ones, each imported at its first call."""
        homes = {
            "run_all": "experiments.reproduce.sweep",
            "stock_overrides": "experiments.compare.budget",
            "schedule_overrides": "experiments.compare.budget",
            "training_speed": "experiments.compare.cost",
            "figure3": "experiments.reproduce.attention",
            "figure4": "experiments.reproduce.attention",
            "occlusion_curve": "experiments.reproduce.occlusion",
        }
        return cls(**{name: _imported_at_call(module, name) for name, module in homes.items()})


def _imported_at_call(module, name):
    def call(*arguments, **options):
        return getattr(importlib.import_module(module), name)(*arguments, **options)

    return call


def parser():
    parser = Parser(
        prog="reproduce.py",
        description="The paper's tables and figures, measured: trains what is missing, "
        "then writes OUT/WHAT.md, .csv and .png. Finished runs are reused, an interrupted sweep continues.",
        usage="%(prog)s WHAT [options] [KEY VALUE ...]",
    )
    parser.add_argument("what", metavar="WHAT", help=f"{', '.join(WHAT)} or all")
    parser.add_argument("--dataset", help="any registered image data set (default: synthetic_occluded)")
    parser.add_argument("--config-file", help="settings of DPM (default: the one in configs/ for the data set)")
    parser.add_argument("--seeds", nargs="+", default=["1", "2", "3"], help="of every row (default: 1 2 3)")
    parser.add_argument("--epochs", type=int, help="of every run (default: the config's)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--threads", type=int, help="CPU threads of a run (default: cores / jobs)")
    parser.add_argument("--root", help="folder that holds the data sets (default: the config's)")
    parser.add_argument("--out", default="log/reproduce", help="folder for results and runs (default: log/reproduce)")
    parser.add_argument(
        "--budget",
        choices=("time", "epochs"),
        default="time",
        help="table1, table2: other models train as long as DPM or as many epochs (default: time)",
    )
    parser.add_argument(
        "--models", nargs="+", help="table1, table2: torchreid's models (default: osnet_x1_0 resnet50 pcb_p6 mlfn)"
    )
    parser.add_argument("--alphas", nargs="+", help="figure5: values of loss.dpm.alpha (default: around the config's)")
    parser.add_argument("--betas", nargs="+", help="figure5: values of loss.dpm.beta (default: around the config's)")
    parser.add_argument("--images", type=int, default=200, help="figure3, figure4: images to average (default: 200)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings for every run, e.g. train.lr 0.01")
    return parser


def parse(argv):
    """Command line -> namespace with numbers in ``seeds``, ``alphas``, ``betas``.

    Raises:
        DPMError: unknown WHAT, or numbers that are none.
    """
    args = parser().parse_intermixed_args(argv)
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
        raise DPMError(f"unknown table or figure '{args.what}'; the nearest known one is '{nearest(args.what, WHAT)}'")
    if not args.seeds:
        raise DPMError("--seeds is empty; give at least one number")
    for name, low in (("epochs", 1), ("jobs", 1), ("threads", 1), ("images", 1)):
        value = getattr(args, name)
        if value is not None and value < low:
            raise DPMError(f"--{name} is {value}; give at least {low}")
    return args


def _is_key(text):
    section, dot, _ = text.partition(".")
    return bool(dot) and section.isidentifier()


def main(argv=None, tools=None):
    """Run the command line and return its exit code: 0, 2 for a mistake or a failed run, 130 when stopped.

    Args:
        argv: None takes the process's.
        tools: :class:`Tools`; None loads the real ones.
    """
    argv = list(sys.argv[1:] if argv is None else argv)

    def make():
        args = parse(argv)
        with stop_on_sigterm():
            command = ["python", "tools/reproduce.py", *argv]
            maker = Maker(args, tools or Tools.load(), lambda what: _command(command, args.what, what))
            for what in maker.plan(WHAT if args.what == "all" else (args.what,)):
                print(f"=> {what}: '{Path(args.out) / what}.md'", flush=True)

    return exit_code(make, interrupted="interrupted; finished runs are kept: run again to go on")


def _command(command, given, what):
    """The command line as one text, with ``what`` in place of the ``given`` one (of "all")."""
    place = command.index(given)
    return shlex.join([*command[:place], what, *command[place + 1 :]])
