#!/usr/bin/env python
"""Check data before training: ``python tools/check_data.py NAME_OR_FOLDER... [--root ROOT] [--json FILE]``.

Exit codes: 0 clean, 1 something was found, 2 a mistake in the command (one line on stderr), 130 interrupted.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

from dpm_plugin.apps.check_data.cli import main

if __name__ == "__main__":
    sys.exit(main())
