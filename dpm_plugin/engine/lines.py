"""When torchreid's training loop prints a line."""

import time
from collections.abc import Callable

SILENCE = 30.0  # seconds without a line after which the next iteration prints one


class PrintFrequency(int):
    """``print_freq`` for one epoch of torchreid's loop, which prints where ``iteration % print_freq`` is 0.

    That is so every ``print_freq`` iterations, at the epoch's last one, and where ``SILENCE`` has passed.
    """

    is_last: Callable[[int], bool]  # whether the epoch ends with this iteration
    printed: float  # when the last line was, or the epoch began

    def __new__(cls, print_freq: int, is_last: Callable[[int], bool]) -> "PrintFrequency":
        self = super().__new__(cls, print_freq)
        self.is_last, self.printed = is_last, time.monotonic()
        return self

    def __rmod__(self, iteration: int) -> int:
        """0 where a line is due after ``iteration``, counted from 1."""
        now = time.monotonic()
        rest = iteration % int(self)
        if rest and not self.is_last(iteration) and now - self.printed < SILENCE:
            return rest
        self.printed = now
        return 0
