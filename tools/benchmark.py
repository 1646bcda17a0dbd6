#!/usr/bin/env python
"""Measure how fast each part is: ``python tools/benchmark.py head|...|all [--json FILE]``.

Every part is timed against a plain implementation of the same mathematics, the oracle of the tests, in one
process and in turn. Exit codes as those of tools/main.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

from experiments.benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main())
