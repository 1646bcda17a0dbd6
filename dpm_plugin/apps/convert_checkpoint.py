"""Checkpoints from one layout to another: ``tools/convert_checkpoint.py IN OUT [--to released|dpm|timm]``."""

from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.weights.files import read_state, write_state
from dpm_plugin.weights.key_names import LAYOUTS, from_own_names, to_own_names
from dpm_plugin.weights.published import local_file


def convert(source, target, to="dpm"):
    """Write the weights of file ``source`` to ``target`` under the names of layout ``to``.

    Names change and the camera embedding's shape; values and number formats do not. The result is a plain
    state dict, without training state. A released file converted to "dpm" and back is bit-equal: what only the
    released layout has keeps its name in between.

    Args:
        source: file of any layout that ``load_weights`` takes, or ``zoo:NAME``.
        target: written whole or not at all; a name that ends in ".safetensors" makes it such a file.
        to: "released", "dpm" (this package) or "timm" (the encoder alone). Default: "dpm".

    Returns:
        (layout of ``source``, names in it or ours that were left out).

    Raises:
        DPMError: unreadable, of an unknown layout, or the target can't be written.
    """
    if to not in LAYOUTS:
        raise DPMError(f"layout '{to}' is unknown; choose {', '.join(LAYOUTS)}")
    source = local_file(source)
    named = to_own_names(read_state(source))
    if named.layout == "torchreid":
        raise DPMError(f"'{source}' holds no weights of DPM, of TransReID's ViT or of a timm ViT: nothing to convert")
    state, left_out = from_own_names(named.state, to)
    write_state(state, target)
    left_out = named.unused + left_out
    shown = ", ".join(left_out[:4]) + (", ..." if len(left_out) > 4 else "")
    print(
        f"=> '{source}' ({named.layout} layout) to '{target}' ({to} layout): {len(state)} tensors"
        + (f"; {len(left_out)} left out ({shown})" if left_out else "")
    )
    return named.layout, left_out


def main(argv=None):
    """Run the command line and return its exit code."""
    parser = Parser(
        description="Convert a checkpoint between the released DPM implementation's, this package's "
        "and timm's layout; what IN is, is recognised."
    )
    parser.add_argument("source", metavar="IN", help="checkpoint, torch or safetensors; or zoo:NAME")
    parser.add_argument("target", metavar="OUT", help="file to write; .safetensors writes such a file")
    parser.add_argument("--to", choices=list(LAYOUTS), default="dpm", help="layout of OUT (default: dpm)")
    args = parser.parse_args(argv)
    return exit_code(lambda: convert(args.source, args.target, args.to))
