"""``dpm COMMAND ...``: from the word to its file."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from dpm_plugin import __version__
from dpm_plugin.utils.command import Parser
from dpm_plugin.utils.text import unknown

#: Word -> what it does; its file is of that name, with _ for -.
COMMANDS = {
    "train": "train a model, then evaluate it",
    "eval": "evaluate a finished run, or any weights with a config file",
    "check": "read every image of data sets, and check files and labels",
    "search": "find people in a folder of images",
    "export": "write a trained model as ONNX or PyTorch export",
    "visualize": "draw what a finished run sees in its queries",
    "convert": "convert a checkpoint between key names",
    "compare": "models beside each other: accuracy, parameters, FLOPs, speed, memory",
    "prepare-occduke": "make Occluded-Duke from your DukeMTMC-reID.zip",
}


def main(argv: Sequence[str] | None = None, prog: str = "dpm") -> int:
    """Run ``COMMAND ARGS...`` and return its exit code; ``argv`` None takes the process's."""
    argv = sys.argv[1:] if argv is None else argv
    word, *rest = argv or ["--"]
    if word in COMMANDS:
        return import_module(f"dpm_plugin.commands.{word.replace('-', '_')}").main(rest)
    parser = Parser(
        prog=prog,
        usage="%(prog)s COMMAND ...",
        description="Occluded person re-identification: Dynamic Prototype Mask (ACM MM 2022) in torchreid.",
        epilog="commands, each with its own --help:\n" + "".join(f"  {w:<17}{what}\n" for w, what in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_versions(), help="show versions and exit")
    parser.add_argument("command", metavar="COMMAND", help="one of those below")
    parser.add_argument("args", nargs=argparse.REMAINDER, metavar="ARGS", help=argparse.SUPPRESS)
    parser.error(str(unknown("command", parser.parse_args(argv).command, COMMANDS)))


def _versions() -> str:
    found = {"dpm-torchreid": __version__}
    for name in ("torch", "timm", "torchreid"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # such as a checkout on PYTHONPATH
            found[name] = "of unknown version"
    return ", ".join(f"{name} {number}" for name, number in found.items())
