"""A progress line every few seconds, with the time left."""

import time


class Progress:
    """Calls ``show`` with "n/total things, m:ss left" every ``every`` seconds and at the end."""

    def __init__(self, total, things, show, every=5.0, clock=time.monotonic):
        self.total, self.things, self.show, self.every, self.clock = total, things, show, every, clock
        self.start = self.last = clock()

    def at(self, done):
        now = self.clock()
        if done < self.total and now - self.last < self.every:
            return
        self.last = now
        left = round((now - self.start) / done * (self.total - done))
        self.show(f"{done:,}/{self.total:,} {self.things}, {left // 60}:{left % 60:02d} left")
