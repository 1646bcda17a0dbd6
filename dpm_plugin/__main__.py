"""``python -m dpm_plugin COMMAND ARGS...``, as ``dpm`` does, or ``SCRIPT ARGS...``: see :mod:`dpm_plugin.script`."""

import os
import sys
from collections.abc import Sequence

from dpm_plugin import commands, script


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a file that exists, and any name in .py, is a script."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and (argv[0].endswith(".py") or os.path.isfile(argv[0])):
        return script.main(argv)
    return commands.main(argv, prog="python -m dpm_plugin")


if __name__ == "__main__":
    sys.exit(main())
