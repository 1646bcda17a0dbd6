"""Convert a checkpoint to the tensor names of another implementation."""

from pathlib import Path

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import check_output
from dpm_plugin.weights.conversions import refuse_foreign
from dpm_plugin.weights.files import read_state, write_state
from dpm_plugin.weights.key_names import WRITABLE, from_own_names, to_own_names
from dpm_plugin.weights.published import local_file


def convert(source: str | Path, target: str | Path, to: str = "dpm") -> tuple[str, int, list[str]]:
    """Write the weights of file ``source`` to ``target`` under the names of another implementation.

    Values and number formats stay, training state is left out. A released file converted to "dpm" and back is
    bit-equal.

    Args:
        source: any file that ``load_weights`` takes, or ``zoo:NAME``.
        target: written whole or not at all; a name that ends in ".safetensors" makes it such a file.
        to: "released", "dpm" (this package) or "timm" (the encoder alone). Default: "dpm".

    Returns:
        (naming of ``source``, number of tensors written, names in it or ours that were left out).

    Raises:
        DPMError: unreadable, no weights of DPM or of a ViT, or the target can't be written or is ``source``.
    """
    if to not in WRITABLE:
        raise DPMError(f"naming '{to}' is unknown; choose {', '.join(WRITABLE)}")
    check_output(target, [source := local_file(source)])
    content = read_state(source)
    refuse_foreign(content, f"'{source}'")
    named = to_own_names(content)
    if named.naming == "torchreid":
        raise DPMError(f"'{source}' holds no weights of DPM or of a ViT of known names: nothing to convert")
    state, left_out = from_own_names(named.state, to)
    write_state(state, target)
    return named.naming, len(state), named.unused + left_out
