#!/usr/bin/env python
"""``python tools/main.py`` is ``dpm train``: see dpm_plugin/commands/train.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

from dpm_plugin.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
