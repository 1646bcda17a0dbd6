"""``python -m dpm_plugin SCRIPT ARGS...``: see :mod:`dpm_plugin.script`."""

import sys

from dpm_plugin.script import main

if __name__ == "__main__":
    sys.exit(main())
