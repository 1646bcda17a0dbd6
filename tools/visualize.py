#!/usr/bin/env python
"""Draw what a run sees in its queries: tools/visualize.py RUN_FOLDER [--queries N|NAME...] [--out FOLDER]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dpm_plugin.apps.visualize.cli import main

if __name__ == "__main__":
    sys.exit(main())
