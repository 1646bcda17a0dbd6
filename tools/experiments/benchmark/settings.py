"""What every part of the benchmark is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from experiments.benchmark.timing import Timing, take_turns

Sizes = TypeVar("Sizes")


@dataclass(frozen=True)
class Settings:
    """Where and how long to measure.

    Args:
        device: torch device. Default: the CPU.
        rounds: timed rounds of every contender. Default: 5.
        tiny: sizes that take seconds, to see that a part runs; its figures mean nothing. Default: False.
    """

    device: torch.device = torch.device("cpu")
    rounds: int = 5
    tiny: bool = False

    def sizes(self, real: Sizes, tiny: Sizes) -> Sizes:
        """The sizes to measure."""
        return tiny if self.tiny else real

    def take_turns(self, contenders: Mapping[str, Callable[[], object]]) -> dict[str, Timing]:
        """:func:`~experiments.benchmark.timing.take_turns` on this device, for these rounds."""
        return take_turns(contenders, rounds=self.rounds, device=self.device)
