"""What every part of the benchmark is told, and where it finds its plain contender."""
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from dpm_plugin.errors import DPMError

__all__ = ["Settings", "plain_module"]

TESTS = Path(__file__).resolve().parents[2] / "tests"


@dataclass(frozen=True)
class Settings:
    """Args:
        device: torch device.
        rounds: timed rounds of every contender.
        tiny: sizes that take seconds, to see that a part runs; its figures mean nothing.
    """

    device: torch.device = torch.device("cpu")
    rounds: int = 5
    tiny: bool = False


def plain_module(name):
    """The module ``tests/<name>.py``, where the plain contenders live as the tests' oracles.

    Raises:
        DPMError: the package was installed without its checkout.
    """
    if name in sys.modules:  # the test-suite imports them by the same name
        return sys.modules[name]
    path = TESTS / f"{name}.py"
    if not path.is_file():
        raise DPMError(f"'{path}' is missing: the plain contenders are part of the tests; run from a checkout")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
