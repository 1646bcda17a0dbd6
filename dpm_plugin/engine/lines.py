"""When torchreid's training loop prints a line."""

import time

SILENCE = 30.0  # seconds without a line after which the next iteration prints one


class PrintFrequency(int):
    """``print_freq`` for one epoch of torchreid's loop, which prints where ``iteration % print_freq`` is 0.

    That is so every ``print_freq`` iterations, at the epoch's last one, and where ``SILENCE`` has passed.
    """

    last: int  # iterations of the epoch
    printed: float  # when the last line was, or the epoch began

    def __new__(cls, print_freq: int, last: int) -> "PrintFrequency":
        self = super().__new__(cls, print_freq)
        self.last, self.printed = last, time.monotonic()
        return self

    def __rmod__(self, iteration: int) -> int:
        """0 where a line is due after ``iteration``, counted from 1."""
        now = time.monotonic()
        rest = iteration % int(self)
        if rest and iteration < self.last and now - self.printed < SILENCE:
            return rest
        self.printed = now
        return 0
