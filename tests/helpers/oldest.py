"""The oldest versions that setup.py declares; ``python tests/helpers/oldest.py`` prints them as pip takes them."""

import re
from pathlib import Path

SETUP = Path(__file__).resolve().parents[2] / "setup.py"


def declared():
    """{package: its lower bound, such as "1.0.21"} of those that have one."""
    return dict(re.findall(r'"([\w-]+)>=([\d.]+)"', SETUP.read_text(encoding="utf-8")))


if __name__ == "__main__":  # not torch: another one would be gigabytes more
    print(*(f"{name}=={version}" for name, version in declared().items() if name != "torch"))
