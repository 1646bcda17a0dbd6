#!/usr/bin/env python
"""Rename a checkpoint's tensors: tools/convert_checkpoint.py IN OUT [--to released|dpm|timm]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

from dpm_plugin.apps.convert_checkpoint import main

if __name__ == "__main__":
    sys.exit(main())
