#!/usr/bin/env python
"""The paper's tables and figures by one command: ``python tools/reproduce.py table3 --seeds 1 2 3``.

Trains what is missing, then writes the Markdown page, CSV and PNG; see ``--help``. Exit codes: 0 done, 2 a
mistake or a failed run (one line on stderr), 130 interrupted.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

from experiments.reproduce.cli import main

if __name__ == "__main__":
    sys.exit(main())
