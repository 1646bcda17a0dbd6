#!/usr/bin/env python
"""Compare models: ``python tools/compare.py MODEL [MODEL ...] --budget minutes 2 --seeds 1 2 3``.

Any of torchreid's or this plugin's models on any data sets: accuracy, parameters, FLOPs, images per second in
training and extraction, and peak memory, in one table. Exit codes as those of tools/main.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

if __name__ == "__main__":
    from experiments.compare.cli import main

    sys.exit(main())
