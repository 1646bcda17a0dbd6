#!/usr/bin/env python
"""Make Occluded_Duke: tools/prepare_occduke.py DukeMTMC-reID.zip --lists FOLDER [--out ROOT]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dpm_plugin.apps.prepare_occduke import main

if __name__ == "__main__":
    sys.exit(main())
