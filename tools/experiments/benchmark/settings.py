"""What every part of the benchmark is told."""

from dataclasses import dataclass

import torch


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
