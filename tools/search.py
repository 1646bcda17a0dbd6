#!/usr/bin/env python
"""Search in a folder of pictures: tools/search.py index FOLDER --model RUN, then query PICTURE... --index FOLDER."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dpm_plugin.apps.picture_index.cli import main

if __name__ == "__main__":
    sys.exit(main())
