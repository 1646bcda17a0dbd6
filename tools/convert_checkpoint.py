#!/usr/bin/env python
"""``python tools/convert_checkpoint.py`` is ``dpm convert``: see dpm_plugin/commands/convert.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

from dpm_plugin.commands.convert import main

if __name__ == "__main__":
    sys.exit(main())
