"""The commands of this package, one a file: ``dpm COMMAND ...``, where installed, or ``python -m dpm_plugin COMMAND``.

Each file has ``main(argv) -> exit code`` and is behind one of the repository's tools/ too.
"""

from dpm_plugin.commands.dispatch import COMMANDS, main

__all__ = ["COMMANDS", "main"]
