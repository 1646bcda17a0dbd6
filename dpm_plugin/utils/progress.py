"""A progress line every few seconds, with the time left."""

from collections.abc import Callable
from time import monotonic

EVERY = 5.0  # seconds


class Progress:
    """Calls ``show`` with "n/total things, m:ss left" every ``EVERY`` seconds and at the end."""

    def __init__(self, total: int, things: str, show: Callable[[str], object]) -> None:
        self.total, self.things, self.show = total, things, show
        self.start = self.last = monotonic()

    def at(self, done: int) -> None:
        """Called when ``done`` things are done."""
        now = monotonic()
        if done < self.total and now - self.last < EVERY:
            return
        self.last = now
        left = round((now - self.start) / done * (self.total - done))
        self.show(f"{done:,}/{self.total:,} {self.things}, {left // 60}:{left % 60:02d} left")
