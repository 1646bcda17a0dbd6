"""Rename a checkpoint's tensors: ``dpm convert IN OUT [--to released|dpm|timm]``."""

from collections.abc import Sequence

from dpm_plugin.apps.convert_checkpoint import convert
from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.weights.key_names import WRITABLE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = Parser(
        prog="dpm convert",
        description="Convert a checkpoint between the tensor names of the released DPM implementation, of this "
        "package and of timm; what IN has, is recognised.",
    )
    parser.add_argument("source", metavar="IN", help="checkpoint, torch or safetensors; or zoo:NAME")
    parser.add_argument("target", metavar="OUT", help="file to write; .safetensors writes such a file")
    parser.add_argument("--to", choices=WRITABLE, default="dpm", help="names of OUT (default: dpm)")
    args = parser.parse_args(argv)
    return exit_code(lambda: print(_converted(args.source, args.target, args.to)))


def _converted(source: str, target: str, to: str) -> str:
    """Convert, and say in a line what was done."""
    naming, count, left_out = convert(source, target, to)
    text = f"=> '{source}' ({naming} names) to '{target}' ({to} names): {count} tensors"
    shown = ", ".join(left_out[:4]) + (", ..." if len(left_out) > 4 else "")
    return text + (f"; {len(left_out)} left out ({shown})" if left_out else "")
