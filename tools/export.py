#!/usr/bin/env python
"""Write a trained model for other programs: tools/export.py RUN_OR_CHECKPOINT OUT.onnx|OUT.pt2."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dpm_plugin.inference.export.cli import main

if __name__ == "__main__":
    sys.exit(main())
